//! The engine of colo: non-stop service for virtual machines, whatever the hypervisor.
//!
//! A *primary* machine serves its clients while a *secondary* on another host stays ready to go on in its place. The way of the
//! data through the modules:
//!
//! * [`domain`]: what a hypervisor must offer; [`net`]: where packets come from and go to.
//! * [`save`] takes a checkpoint of the primary's domain into a [`stream`], [`peer`] carries it, [`restore`] puts it into
//!   the secondary's.
//! * [`compare`] decides which of the primary's packets may leave; [`record`] writes down in what the two machines differed, and why.
//! * [`checkpoint`] decides when to take one, [`failover`] when and how to take over.
//! * [`session`] wires all of it with threads and sockets: start there to protect a machine.
//! * [`guard`] sets things right when the process is killed.
//! * [`standalone`] is a comparator for those who have the rest from QEMU and Xen.
//!
//! All but [`session`] and [`standalone`] are plain state machines: events in, actions out, time as an argument.

pub mod checkpoint;
pub mod compare;
pub mod disk;
pub mod domain;
pub mod failover;
pub mod guard;
pub mod ids;
pub mod layers;
mod lock_file;
pub mod net;
pub mod peer;
mod random;
pub mod record;
pub mod restore;
pub mod save;
pub mod session;
pub mod standalone;
pub mod stream;
pub mod xen;
