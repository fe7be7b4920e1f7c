//! Whole sessions over loopback TCP, with the model domain on both sides: the test is the guests and their client.
//!
//! No test waits for time to pass: each waits for an event, and a deadline turns a hang into a failure. That something has *not*
//! happened is looked at when whatever could have done it is known to have run.

#[path = "support/breakable.rs"]
mod breakable;
#[path = "session/disks.rs"]
mod disks;
#[path = "session/failing_disk.rs"]
mod failing_disk;
#[path = "support/folder.rs"]
mod folder;
#[path = "session/greeting.rs"]
mod greeting;
#[path = "session/held.rs"]
mod held;
#[path = "session/leave.rs"]
mod leave;
#[path = "session/lifecycle.rs"]
mod lifecycle;
#[path = "session/loss.rs"]
mod loss;
#[path = "session/machine.rs"]
mod machine;
#[path = "session/output.rs"]
mod output;
#[path = "session/peers.rs"]
mod peers;
#[path = "session/record.rs"]
mod record;
#[path = "session/rehearsal.rs"]
mod rehearsal;
#[path = "session/relay.rs"]
mod relay;
#[path = "session/rig.rs"]
mod rig;
#[path = "session/shared_disks.rs"]
mod shared_disks;
#[path = "session/takeover.rs"]
mod takeover;
