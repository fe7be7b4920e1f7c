use crate::disk::Summed;
use crate::domain::DomainSpec;
use crate::ids::Epoch;
use crate::net::Frame;
use bytes::Bytes;

/// How the machine is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Mode {
    /// Both machines run; output leaves when both have produced it.
    Colo,
    /// Only the primary runs; output leaves when the checkpoint after it is acknowledged.
    Remus,
}

/// Which of a session's connections this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Checkpoints.
    State,
    /// Packets and heartbeats.
    Net,
    /// What is written to disks; there is none for a machine without.
    Disk,
}

/// The first message of the primary on each connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Which connection this is.
    pub channel: Channel,
    /// A random number, the same on both connections of a session.
    pub session: u64,
    /// How the machine is to be protected.
    pub mode: Mode,
    /// Between two heartbeats, in milliseconds; both sides send them.
    pub heartbeat_ms: u32,
    /// Whether the first two epochs are a rehearsal, in which nothing is protected: the secondary's machine begins to run in
    /// them, and must not take over.
    pub rehearse: bool,
    /// The domain.
    pub spec: DomainSpec,
}

/// What a host says of itself, when it is asked whether it could take a machine in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Its wall clock when this was sent, in nanoseconds since 1970.
    pub clock_ns: u64,
    /// Names and values, as its hypervisor's [`Host::facts`](crate::domain::Host::facts) made them: at most [`MAX_FACTS`](super::MAX_FACTS)
    /// of them.
    pub facts: Vec<(String, String)>,
}

/// An Ethernet frame on its way between the hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetFrame {
    /// Which of the domain's network cards it belongs to.
    pub nic: u8,
    /// The frame.
    pub frame: Frame,
}

/// Why a side ends the session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GoodbyeReason {
    /// An operator ended protection; the primary serves on.
    Stopped,
    /// The secondary has taken over: the primary must not serve any more.
    Promoted,
    /// The guest has ended by itself.
    GuestEnded,
    /// Something failed; the text says what.
    Failed(String),
}

/// What the two sides say to each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// P→S, first on each connection.
    Hello(Hello),
    /// S→P: the answer to `Hello`. The domain is made when all connections have greeted; if it cannot be made, `Goodbye` comes on the net
    /// channel.
    Welcome,
    /// S→P: the answer to `Hello` when it cannot be; the connection ends. At most 1 KiB of text.
    Refused(String),
    /// P→S, the first and only message of a connection of its own: could you take this machine in? Nothing is begun.
    Inquiry(DomainSpec),
    /// S→P: the answer to `Inquiry`; the connection ends.
    Facts(Facts),
    /// P→S, state: whole records of the migration stream (the first also the stream's headers).
    Stream(Bytes),
    /// P→S, state: all of this epoch has been sent.
    EpochEnd {
        /// Which epoch.
        epoch: Epoch,
        /// The sum of the lengths of its `Stream` messages.
        stream_bytes: u64,
        /// CRC-32C over their bytes, in order.
        crc: u32,
    },
    /// S→P, state: the epoch is here, whole and verified; it will be applied whatever happens to the primary.
    EpochStaged(Epoch),
    /// S→P, state: what the secondary's machine is like that runs now, in a rehearsal's first epoch, so that the primary's can become
    /// like it. Only the hypervisor knows what is in it.
    Likeness(Bytes),
    /// S→P, state: the epoch has been applied, the secondary stands where the primary stood.
    EpochApplied(Epoch),
    /// S→P, net for packets and state for disks: the secondary needs a checkpoint (a queue of its is full).
    CheckpointWanted,
    /// P→S, net: frames from the clients, for the primary's guest in this epoch, in this order. What it has not taken when the epoch ends
    /// comes once more, as the first of the next one.
    Input {
        /// The primary's epoch.
        epoch: Epoch,
        /// They were input of the epoch before, too: a secondary that never gets to this one has had them.
        again: bool,
        /// The frames.
        frames: Vec<NetFrame>,
    },
    /// S→P, net: frames from the secondary's guest.
    Output {
        /// The secondary's epoch.
        epoch: Epoch,
        /// The number of the first frame: frames are numbered from 0 in each epoch.
        first: u64,
        /// The frames.
        frames: Vec<NetFrame>,
    },
    /// P→S, net: what these frames of the secondary say has left, so the secondary can forget them.
    Released {
        /// The secondary's epoch.
        epoch: Epoch,
        /// The frames' numbers.
        numbers: Vec<u64>,
    },
    /// P→S, net: the output that came with this epoch's checkpoint has left.
    HeldReleased(Epoch),
    /// P→S, disk: the primary's guest has written that.
    DiskWrite {
        /// Which of the domain's disks.
        disk: u8,
        /// Where, in bytes.
        offset: u64,
        /// What: at most [`MAX_DISK_BYTES`](super::MAX_DISK_BYTES).
        data: Summed,
    },
    /// P→S, disk: that part reads as zeroes from here on.
    DiskZeroes {
        /// Which of the domain's disks.
        disk: u8,
        /// From where, in bytes.
        offset: u64,
        /// How long it is.
        length: u64,
        /// It was discarded: it need not be kept as zeroes.
        may_unmap: bool,
    },
    /// P→S, disk: what was written before belongs to this epoch, and what comes later does not.
    DiskBarrier {
        /// Which epoch.
        epoch: Epoch,
        /// It must be durable before it counts as being there.
        is_durable: bool,
    },
    /// P→S, disk: to be answered when everything is there that was said before.
    DiskFlush {
        /// Counts from 1.
        number: u64,
        /// It must be durable, too.
        is_durable: bool,
    },
    /// S→P, disk: the answer.
    DiskFlushed {
        /// Of which `DiskFlush`.
        number: u64,
    },
    /// P→S, disk: the hashes of a part, each of 64 KiB of it; the last may be shorter. After the first barrier, too, since version 3.1: of what
    /// the primary's guest has there by what was said before.
    DiskHashesWanted {
        /// Which of the domain's disks.
        disk: u8,
        /// From where, in bytes.
        offset: u64,
        /// How long it is: 1 byte to [`MAX_DISK_HASHES`](super::MAX_DISK_HASHES) times 64 KiB.
        length: u32,
        /// The hashes' seed.
        seed: u64,
    },
    /// S→P, disk: the answer. After the first barrier it may have no hashes: that part cannot be read there.
    DiskHashes {
        /// Of which of the domain's disks.
        disk: u8,
        /// From where on.
        offset: u64,
        /// XXH3, of 128 bits.
        hashes: Vec<u128>,
    },
    /// Both ways, disk: both hosts reach the same disks, of these sizes in bytes. Since version 3.2, as the next three.
    DiskShared {
        /// Of each of the domain's disks.
        sizes: Vec<u64>,
    },
    /// P→S, disk: that is what stands there, before the primary's guest changes it.
    DiskBefore {
        /// Which of the domain's disks.
        disk: u8,
        /// Where, in bytes.
        offset: u64,
        /// What: at most [`MAX_DISK_BYTES`](super::MAX_DISK_BYTES).
        data: Summed,
    },
    /// P→S, disk: the same for a part in which there are only zeroes.
    DiskBeforeZeroes {
        /// Which of the domain's disks.
        disk: u8,
        /// From where, in bytes.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// P→S, disk: that is the hash of what the primary reads there, and will read until it has said what stands there: if the secondary
    /// reads something else, it has another disk.
    DiskSame {
        /// Which of the domain's disks.
        disk: u8,
        /// From where, in bytes.
        offset: u64,
        /// How long it is: 1 byte to [`MAX_DISK_HASHES`](super::MAX_DISK_HASHES) times 64 KiB.
        length: u32,
        /// The hash's seed.
        seed: u64,
        /// XXH3, of 128 bits.
        hash: u128,
    },
    /// Both ways, net: alive.
    Heartbeat {
        /// Counts from 0.
        number: u64,
    },
    /// Both ways, both channels: the last message.
    Goodbye(GoodbyeReason),
}
