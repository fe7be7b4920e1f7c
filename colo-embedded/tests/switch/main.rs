//! The switch as its users meet it: a Unix socket, host TCP addresses, and real TCP/IP stacks behind the ports.

mod fabric;
mod forward;
mod guest;
mod ports;
mod running;
