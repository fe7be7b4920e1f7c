//! The vCPU: one thread that traces the guest's process, and the handle by which others stop it and let it go.

use super::abi::{HYPERCALL_CONSOLE, HYPERCALL_SHUTDOWN, PAGE_BYTES, RAM_BASE};
use super::console::Console;
use super::dirty::{DirtyLogChoice, DirtyTracker};
use super::disk::DiskLine;
use super::nic::Nic;
use super::process::Process;
use super::ptrace::{Stop, Tracee};
use super::ram::GuestRam;
use super::registers::{RegisterLimits, Registers};
use super::seccomp;
use colo_core::domain::{DomainError, RunState};
use rustix::process::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the guest may take to stop before something is said to be wrong: it takes tens of microseconds.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// The signal that stops the guest. It is never delivered.
const STOP_SIGNAL: Signal = Signal::USR1;

/// How a domain ended by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndReport {
    /// In words, for people.
    pub reason: String,
    /// The instruction at which it happened, where that is known.
    pub rip: Option<u64>,
}

/// The handle. Dropping it ends the guest.
pub(crate) struct Vcpu {
    shared: Arc<VcpuShared>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    pidfd: Arc<OwnedFd>,
    pid: i32,
}

/// What the handle and the thread share.
struct VcpuShared {
    phase: Mutex<Phase>,
    changed: Condvar,
    stop_requested: AtomicBool,
    /// The end is our own doing.
    destroyed: AtomicBool,
}

enum Phase {
    Running,
    Stopped(Box<Registers>),
    Ended(RunState, EndReport),
}

enum Command {
    /// Set the registers of the stopped guest.
    Load(Box<Registers>, SyncSender<io::Result<()>>),
    Resume,
    Destroy,
}

/// What a new vCPU comes with.
pub(crate) struct Started {
    pub(crate) vcpu: Vcpu,
    pub(crate) tracker: Box<dyn DirtyTracker>,
    pub(crate) limits: RegisterLimits,
}

impl Vcpu {
    /// Starts the guest's process, stopped, with the registers of a fresh process.
    pub(crate) fn start(
        name: &str,
        ram: Arc<GuestRam>,
        nic: Arc<Nic>,
        disk: Arc<DiskLine>,
        console: Arc<Console>,
        choice: DirtyLogChoice,
    ) -> Result<Started, DomainError> {
        let shared = Arc::new(VcpuShared {
            phase: Mutex::new(Phase::Running),
            changed: Condvar::new(),
            stop_requested: AtomicBool::new(false),
            destroyed: AtomicBool::new(false),
        });
        let (commands, command_receiver) = mpsc::channel();
        let (ready, ready_receiver) = mpsc::sync_channel(1);
        let (name, thread_shared) = (name.to_owned(), shared.clone());
        let code = RAM_BASE..RAM_BASE + ram.bytes();
        let thread = std::thread::Builder::new()
            .name("colo-vcpu".into())
            .spawn(move || match Process::start(&ram, [nic.doorbell(), disk.doorbell()], choice) {
                Ok((process, tracker)) => {
                    // The receiver waits for exactly this.
                    let _ = ready.send(Ok((process.tracee(), process.pidfd(), tracker)));
                    let worker =
                        Worker { process, shared: thread_shared, commands: command_receiver, name, ram, console };
                    worker.run(&nic, &disk);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            })
            .map_err(DomainError::sys("spawn of the vCPU's thread"))?;
        let ready = ready_receiver.recv().map_err(|_| DomainError::Other("the vCPU's thread is gone".into()))?;
        let (tracee, pidfd, tracker) = ready?;
        let mut vcpu = Vcpu { shared, commands, thread: Some(thread), pidfd, pid: tracee.0 };
        vcpu.wait_while_running()?;
        let limits = vcpu.fresh_limits(code)?;
        Ok(Started { vcpu, tracker, limits })
    }

    /// The guest's process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn run_state(&self) -> RunState {
        match &*self.shared.lock() {
            Phase::Running => RunState::Running,
            Phase::Stopped(_) => RunState::Suspended,
            Phase::Ended(state, _) => *state,
        }
    }

    pub(crate) fn end_report(&self) -> Option<EndReport> {
        match &*self.shared.lock() {
            Phase::Ended(_, report) => Some(report.clone()),
            Phase::Running | Phase::Stopped(_) => None,
        }
    }

    /// Waits until the guest has ended, or the deadline is over.
    pub(crate) fn wait_until_ended(&self, timeout: Duration) -> RunState {
        let running = |phase: &mut Phase| !matches!(phase, Phase::Ended(..));
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), timeout, running);
        drop(waited);
        self.run_state()
    }

    /// Stops the guest at whatever instruction it is, unless it is stopped or has ended.
    pub(crate) fn stop(&mut self) -> Result<(), DomainError> {
        if self.run_state() == RunState::Running {
            self.shared.stop_requested.store(true, Ordering::SeqCst);
            // Fails only when the process is gone, and then its end is what we shall see.
            let _ = rustix::process::pidfd_send_signal(&*self.pidfd, STOP_SIGNAL);
        }
        self.wait_while_running()
    }

    /// Lets the stopped guest go on.
    pub(crate) fn resume(&mut self) {
        let mut phase = self.shared.lock();
        if matches!(*phase, Phase::Stopped(_)) {
            *phase = Phase::Running;
            // The thread is waiting for it; if it is not, it is about to report the guest's end.
            let _ = self.commands.send(Command::Resume);
        }
    }

    /// The stopped guest's registers, or `None` when it is not stopped.
    pub(crate) fn registers(&self) -> Option<Registers> {
        match &*self.shared.lock() {
            Phase::Stopped(registers) => Some(Registers::clone(registers)),
            Phase::Running | Phase::Ended(..) => None,
        }
    }

    /// Sets the stopped guest's registers.
    ///
    /// # Errors
    /// What the kernel said to them; none are changed then.
    pub(crate) fn load(&mut self, registers: Registers) -> io::Result<()> {
        let (reply, answer) = mpsc::sync_channel(1);
        let gone = || io::Error::other("the vCPU's thread is gone");
        self.commands.send(Command::Load(Box::new(registers), reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Ends the guest. On return its process is gone.
    pub(crate) fn destroy(&mut self) {
        self.shared.destroyed.store(true, Ordering::SeqCst);
        let _ = self.commands.send(Command::Destroy);
        let _ = rustix::process::pidfd_send_signal(&*self.pidfd, Signal::KILL);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn wait_while_running(&mut self) -> Result<(), DomainError> {
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut phase = self.shared.lock();
        while matches!(*phase, Phase::Running) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DomainError::Other("the guest does not stop".into()));
            }
            phase = self.shared.changed.wait_timeout(phase, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn fresh_limits(&self, code: std::ops::Range<u64>) -> Result<RegisterLimits, DomainError> {
        self.registers()
            .and_then(|registers| RegisterLimits::new(&registers.xstate, code))
            .ok_or_else(|| DomainError::Other("this processor's extended registers are of an unknown form".into()))
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.destroy();
    }
}

impl VcpuShared {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.lock() = phase;
        self.changed.notify_all();
    }
}

/// Why the guest is not let go on.
struct End {
    state: RunState,
    report: EndReport,
}

impl End {
    fn crash(reason: String, rip: Option<u64>) -> End {
        End { state: RunState::Crashed, report: EndReport { reason, rip } }
    }

    fn shutdown(reason: &str) -> End {
        End { state: RunState::ShutDown, report: EndReport { reason: reason.into(), rip: None } }
    }
}

/// The thread's side.
struct Worker {
    process: Process,
    shared: Arc<VcpuShared>,
    commands: Receiver<Command>,
    name: String,
    ram: Arc<GuestRam>,
    console: Arc<Console>,
}

impl Worker {
    /// Lives as long as the guest.
    fn run(mut self, nic: &Nic, disk: &DiskLine) {
        let mut end = match self.live() {
            Ok(end) => end,
            Err(error) => End::crash(format!("the monitor lost hold of the guest: {error}"), None),
        };
        if self.shared.destroyed.load(Ordering::SeqCst) {
            end = End::shutdown("destroyed");
        }
        let Worker { process, shared, name, .. } = self;
        drop(process);
        if end.state == RunState::Crashed {
            tracing::warn!(domain = name, rip = end.report.rip, reason = end.report.reason, "the guest has crashed");
        }
        // Who finds the card dead must find the domain ended.
        shared.set(Phase::Ended(end.state, end.report));
        nic.end();
        disk.end();
    }

    fn live(&mut self) -> io::Result<End> {
        loop {
            if let Some(end) = self.park()? {
                return Ok(end);
            }
            while !self.shared.stop_requested.swap(false, Ordering::SeqCst) {
                self.process.tracee().resume()?;
                if let Some(end) = self.next_stop()? {
                    return Ok(end);
                }
            }
        }
    }

    /// The guest is stopped: tells so, and does as it is told until it shall go on.
    fn park(&mut self) -> io::Result<Option<End>> {
        let tracee = self.process.tracee();
        tracee.leave_system_call()?;
        self.shared.set(Phase::Stopped(Box::new(tracee.registers()?)));
        loop {
            match self.commands.recv() {
                Ok(Command::Resume) => return Ok(None),
                Ok(Command::Load(registers, reply)) => {
                    let result = tracee.set_registers(&registers);
                    if result.is_ok() {
                        self.shared.set(Phase::Stopped(registers));
                    }
                    let _ = reply.send(result);
                }
                Ok(Command::Destroy) | Err(_) => return Ok(Some(End::shutdown("destroyed"))),
            }
        }
    }

    fn next_stop(&mut self) -> io::Result<Option<End>> {
        let tracee = self.process.tracee();
        match self.process.wait()? {
            Stop::Signal(signal) => {
                if let Some(end) = fault(tracee, signal)? {
                    return Ok(Some(end));
                }
                // A signal from outside, or ours; the filter knows no `restart_syscall`.
                tracee.leave_system_call()?;
                Ok(None)
            }
            Stop::Seccomp(seccomp::TRACE_HYPERCALL) => self.hypercall(tracee),
            Stop::Seccomp(_) => {
                let registers = tracee.raw_registers()?;
                let reason = format!("forbidden system call {}", registers.orig_rax as i64);
                Ok(Some(End::crash(reason, Some(registers.rip))))
            }
            Stop::Exited(code) => Ok(Some(End::crash(format!("its process has exited with {code}"), None))),
            Stop::Killed(signal) => Ok(Some(End::crash(format!("its process was killed by signal {signal}"), None))),
        }
    }

    fn hypercall(&mut self, tracee: Tracee) -> io::Result<Option<End>> {
        let registers = tracee.raw_registers()?;
        match registers.orig_rax {
            HYPERCALL_CONSOLE => {
                let result = self.write_console(registers.rdi, registers.rsi);
                tracee.answer_system_call(result)?;
                Ok(None)
            }
            HYPERCALL_SHUTDOWN if registers.rdi == 0 => Ok(Some(End::shutdown("shut down in order"))),
            HYPERCALL_SHUTDOWN => {
                Ok(Some(End::crash(format!("it gave up with code {}", registers.rdi), Some(registers.rip))))
            }
            other => Ok(Some(End::crash(format!("unknown hypercall {other:#x}"), Some(registers.rip)))),
        }
    }

    /// What the hypercall returns.
    fn write_console(&self, address: u64, len: u64) -> i64 {
        if len > PAGE_BYTES {
            return i64::from(-libc::EINVAL);
        }
        let mut text = vec![0; len as usize];
        match address.checked_sub(RAM_BASE) {
            Some(offset) if self.ram.read_bytes(offset, &mut text) => {
                self.console.write(&self.name, &text);
                0
            }
            _ => i64::from(-libc::EFAULT),
        }
    }
}

/// Whether that signal is the processor's word on the guest's last instruction.
fn fault(tracee: Tracee, signal: i32) -> io::Result<Option<End>> {
    let what = match signal {
        libc::SIGSEGV => "a bad address",
        libc::SIGBUS => "a bus error",
        libc::SIGILL => "an illegal instruction",
        libc::SIGFPE => "an arithmetic error",
        libc::SIGTRAP => "a breakpoint",
        _ => return Ok(None),
    };
    let Some(address) = tracee.fault_address()? else {
        return Ok(None);
    };
    let rip = tracee.raw_registers()?.rip;
    Ok(Some(End::crash(format!("{what} ({address:#x}) at {rip:#x}"), Some(rip))))
}
