//! The process that a guest runs in: started as a stub of two instructions, then furnished by remote system calls until nothing is
//! left in it but guest memory and a filter on its system calls.

use super::abi::{DISK_DOORBELL_FD, DOORBELL_FD, PAGE_BYTES, RAM_BASE};
use super::dirty::userfaultfd_constants as uffd;
use super::dirty::{DirtyLogChoice, DirtyTracker, ShadowLog, UserfaultfdLog};
use super::ptrace::{Stop, Tracee};
use super::ram::{GuestRam, sys};
use super::seccomp;
use colo_core::domain::DomainError;
use colo_core::ids::Pfn;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Guest memory's file descriptor in the new process, until it is mapped.
const RAM_FD: RawFd = 5;
/// The stub's.
const STUB_FD: RawFd = 6;
/// Descriptors are moved out of the way to numbers from here on before they get their final ones.
const SPARE_FD: RawFd = 64;

/// `syscall; int3`: makes a system call, and reports.
const CALL_AND_STOP: [u8; 3] = [0x0F, 0x05, 0xCC];
/// Where the stub is loaded.
const STUB_BASE: u64 = 0x40_0000;
/// Where its two headers end and its code begins.
const STUB_CODE: u64 = STUB_BASE + 120;

/// The name that ps(1) shows.
const PROCESS_NAME: &[u8; 11] = b"colo-guest\0";

/// A traced process, killed and reaped when dropped. Belongs to the thread that started it.
pub(crate) struct Process {
    tracee: Tracee,
    pidfd: Arc<OwnedFd>,
    reaped: bool,
}

impl Process {
    /// Starts a process with nothing in it but the guest's memory, its doorbells (the card's, the disk's), and the filter; it is stopped.
    ///
    /// # Errors
    /// When the system does not let us: [`DomainError::Sys`], or [`DomainError::Other`] with the reason.
    pub(crate) fn start(
        ram: &GuestRam,
        doorbells: [BorrowedFd<'_>; 2],
        choice: DirtyLogChoice,
    ) -> Result<(Process, Box<dyn DirtyTracker>), DomainError> {
        let stub = make_stub().map_err(|errno| sys("memfd of the stub", errno))?;
        let mut process = Process::fork(doorbells, ram.file(), stub.as_fd())?;
        process.wait_for_stub()?;
        process.tracee.set_options().map_err(DomainError::sys("PTRACE_SETOPTIONS"))?;
        let tracker = process.furnish(ram, choice)?;
        Ok((process, tracker))
    }

    pub(crate) fn tracee(&self) -> Tracee {
        self.tracee
    }

    /// For signals from other threads: safe from a number used again.
    pub(crate) fn pidfd(&self) -> Arc<OwnedFd> {
        self.pidfd.clone()
    }

    /// Waits until the process stops or ends.
    pub(crate) fn wait(&mut self) -> io::Result<Stop> {
        let stop = self.tracee.wait()?;
        self.reaped = matches!(stop, Stop::Exited(_) | Stop::Killed(_));
        Ok(stop)
    }

    fn fork(
        [card, disk]: [BorrowedFd<'_>; 2],
        ram: BorrowedFd<'_>,
        stub: BorrowedFd<'_>,
    ) -> Result<Process, DomainError> {
        let monitor = rustix::process::getpid().as_raw_nonzero().get();
        let sources = [card.as_raw_fd(), disk.as_raw_fd(), ram.as_raw_fd(), stub.as_raw_fd()];
        // SAFETY: the child calls only `become_stub`, which makes nothing but system calls, as it must after a fork of one
        // thread of many.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(DomainError::Sys { call: "fork", source: io::Error::last_os_error() });
        }
        if pid == 0 {
            become_stub(monitor, sources);
        }
        let pidfd =
            Pid::from_raw(pid).ok_or(Errno::SRCH).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
        match pidfd {
            Ok(pidfd) => Ok(Process { tracee: Tracee(pid), pidfd: Arc::new(pidfd), reaped: false }),
            Err(errno) => {
                // SAFETY: the process is a child that nobody has reaped, so the number is still its own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                let _ = Tracee(pid).wait();
                Err(sys("pidfd_open", errno))
            }
        }
    }

    /// The stub has been executed when it stops with SIGTRAP.
    fn wait_for_stub(&mut self) -> Result<(), DomainError> {
        loop {
            match self.wait().map_err(DomainError::sys("waitpid"))? {
                Stop::Signal(libc::SIGTRAP) => return Ok(()),
                Stop::Exited(step) => {
                    return Err(DomainError::Other(format!("the guest's process could not be started (step {step})")));
                }
                Stop::Killed(signal) => return Err(killed(signal)),
                Stop::Signal(_) | Stop::Seccomp(_) => {
                    self.tracee.resume().map_err(DomainError::sys("PTRACE_CONT"))?;
                }
            }
        }
    }

    /// Makes the process into a machine. The last page of guest memory is its workshop, empty again at the end.
    fn furnish(&mut self, ram: &GuestRam, choice: DirtyLogChoice) -> Result<Box<dyn DirtyTracker>, DomainError> {
        let mut remote = Remote { process: self, ram, code: STUB_CODE };
        remote.map_ram()?;
        remote.move_into_ram()?;
        remote.unmap_all_else()?;
        remote.call("prctl", libc::SYS_prctl, &[libc::PR_SET_NAME as u64, remote.scratch(PROCESS_NAME)?])?;
        let tracker = remote.make_dirty_log(choice)?;
        remote.confine()?;
        ram.release_page(workshop(ram))?;
        Ok(tracker)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&*self.pidfd, Signal::KILL);
        while !self.reaped && self.wait().is_ok() {}
    }
}

/// A page that the guest does not use yet.
fn workshop(ram: &GuestRam) -> Pfn {
    Pfn(ram.pfn_limit() - 1)
}

/// System calls made by the stopped process.
struct Remote<'a> {
    process: &'a mut Process,
    ram: &'a GuestRam,
    /// Where [`CALL_AND_STOP`] is in the process.
    code: u64,
}

impl Remote<'_> {
    fn map_ram(&mut self) -> Result<(), DomainError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
        let arguments = [RAM_BASE, self.ram.bytes(), protection as u64, flags as u64, RAM_FD as u64, 0];
        // Old kernels take the address for a mere wish.
        if self.call("mmap", libc::SYS_mmap, &arguments)? != RAM_BASE {
            return Err(DomainError::Other("guest memory cannot be mapped at its address".into()));
        }
        self.call("close", libc::SYS_close, &[RAM_FD as u64])?;
        Ok(())
    }

    /// From here on the code is in guest memory, so that the stub can go.
    fn move_into_ram(&mut self) -> Result<(), DomainError> {
        let offset = workshop(self.ram).byte_offset();
        if !self.ram.write_bytes(offset, &CALL_AND_STOP) {
            return Err(DomainError::Other("guest memory has no last page".into()));
        }
        self.code = RAM_BASE + offset;
        Ok(())
    }

    /// Removes the stub, its stack, and what the kernel has put beside them. The kernel may hold on to its own pages.
    fn unmap_all_else(&mut self) -> Result<(), DomainError> {
        let path = format!("/proc/{}/maps", self.process.tracee.0);
        let maps = std::fs::read_to_string(path).map_err(DomainError::sys("reading the guest's mappings"))?;
        for line in maps.lines() {
            let Some((start, end)) = parse_mapping(line) else {
                continue;
            };
            let is_ram = start >= RAM_BASE && end <= RAM_BASE + self.ram.bytes();
            if is_ram || line.ends_with("[vsyscall]") {
                continue;
            }
            let result = self.call("munmap", libc::SYS_munmap, &[start, end - start]);
            if !line.ends_with(']') || line.ends_with("[stack]") || line.ends_with("[heap]") {
                result?;
            }
        }
        Ok(())
    }

    fn make_dirty_log(&mut self, choice: DirtyLogChoice) -> Result<Box<dyn DirtyTracker>, DomainError> {
        if choice == DirtyLogChoice::Shadow {
            return Ok(Box::new(ShadowLog::default()));
        }
        match self.make_userfaultfd_log() {
            Ok(log) => Ok(Box::new(log)),
            Err(error) if choice == DirtyLogChoice::Auto => {
                tracing::debug!(%error, "no userfaultfd; dirty pages will be found by comparing");
                Ok(Box::new(ShadowLog::default()))
            }
            Err(error) => Err(error),
        }
    }

    /// The userfaultfd stays open in the guest's process: its memory is registered as long as that lives.
    fn make_userfaultfd_log(&mut self) -> Result<UserfaultfdLog, DomainError> {
        let flags = libc::O_CLOEXEC as u64 | libc::O_NONBLOCK as u64 | uffd::UFFD_USER_MODE_ONLY;
        let fd = self.call("userfaultfd", libc::SYS_userfaultfd, &[flags])?;
        let api = self.scratch_words(&[uffd::UFFD_API, uffd::FEATURES, 0])?;
        self.call("UFFDIO_API", libc::SYS_ioctl, &[fd, uffd::UFFDIO_API, api])?;
        let range = self.scratch_words(&[RAM_BASE, self.ram.bytes(), uffd::UFFDIO_REGISTER_MODE_WP, 0])?;
        self.call("UFFDIO_REGISTER", libc::SYS_ioctl, &[fd, uffd::UFFDIO_REGISTER, range])?;
        UserfaultfdLog::new(self.process.tracee.0).map_err(DomainError::sys("PAGEMAP_SCAN"))
    }

    /// No way back: from here on only the guest's hypercalls get through.
    fn confine(&mut self) -> Result<(), DomainError> {
        self.call("prctl", libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as u64, 1])?;
        let filter = seccomp::filter_bytes();
        // `struct sock_fprog`: a length, padding, and the address of the filter, which follows it.
        let mut program = ((filter.len() / seccomp::INSTRUCTION_BYTES) as u64).to_le_bytes().to_vec();
        program.extend_from_slice(&(self.scratch_address() + 16).to_le_bytes());
        program.extend_from_slice(&filter);
        let program = self.scratch(&program)?;
        // Without the flag, some processors run the guest slowly for a protection that it has no use for.
        let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let arguments = [libc::SECCOMP_SET_MODE_FILTER as u64, flags, program];
        self.call("seccomp", libc::SYS_seccomp, &arguments)?;
        Ok(())
    }

    /// Puts data where the process can see it, until the next call of this.
    fn scratch(&self, data: &[u8]) -> Result<u64, DomainError> {
        let address = self.scratch_address();
        let fits = data.len() as u64 <= PAGE_BYTES - 64 && self.ram.write_bytes(address - RAM_BASE, data);
        if fits { Ok(address) } else { Err(DomainError::Other("no room for a system call's data".into())) }
    }

    fn scratch_words(&self, words: &[u64]) -> Result<u64, DomainError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.scratch(&bytes)
    }

    fn scratch_address(&self) -> u64 {
        RAM_BASE + workshop(self.ram).byte_offset() + 64
    }

    fn call(&mut self, name: &'static str, number: libc::c_long, arguments: &[u64]) -> Result<u64, DomainError> {
        let tracee = self.process.tracee;
        let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
        let registers = tracee.raw_registers().map_err(DomainError::sys("PTRACE_GETREGS"))?;
        let registers = libc::user_regs_struct {
            rip: self.code,
            rax: number as u64,
            orig_rax: u64::MAX,
            rdi: argument(0),
            rsi: argument(1),
            rdx: argument(2),
            r10: argument(3),
            r8: argument(4),
            r9: argument(5),
            ..registers
        };
        tracee.set_raw_registers(&registers).map_err(DomainError::sys("PTRACE_SETREGS"))?;
        self.run_to_stop()?;
        let registers = tracee.raw_registers().map_err(DomainError::sys("PTRACE_GETREGS"))?;
        let result = registers.rax as i64;
        if (-4095..0).contains(&result) {
            return Err(DomainError::Sys { call: name, source: io::Error::from_raw_os_error(-result as i32) });
        }
        Ok(registers.rax)
    }

    fn run_to_stop(&mut self) -> Result<(), DomainError> {
        loop {
            self.process.tracee.resume().map_err(DomainError::sys("PTRACE_CONT"))?;
            match self.process.wait().map_err(DomainError::sys("waitpid"))? {
                Stop::Signal(libc::SIGTRAP) => return Ok(()),
                Stop::Signal(signal @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL)) | Stop::Killed(signal) => {
                    return Err(killed(signal));
                }
                Stop::Exited(_) | Stop::Seccomp(_) => return Err(killed(libc::SIGSYS)),
                // Somebody's signal to the whole group: it is not delivered.
                Stop::Signal(_) => (),
            }
        }
    }
}

fn killed(signal: i32) -> DomainError {
    DomainError::Other(format!("the guest's process died while it was made (signal {signal})"))
}

/// The addresses at the beginning of a line of `/proc/PID/maps`.
fn parse_mapping(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// A program of [`CALL_AND_STOP`] alone, so that the new process shares nothing with the monitor.
fn make_stub() -> Result<OwnedFd, Errno> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC for x86-64, version 1; entry, program headers, no section headers; sizes.
    elf.extend([2_u16, 62, 1, 0].iter().flat_map(|field| field.to_le_bytes()));
    elf.extend([STUB_CODE, 64, 0].iter().flat_map(|field| field.to_le_bytes()));
    elf.extend([0_u16, 0, 64, 56, 1, 64, 0, 0].iter().flat_map(|field| field.to_le_bytes()));
    // One PT_LOAD, readable and executable, of the whole file.
    let bytes = STUB_CODE - STUB_BASE + CALL_AND_STOP.len() as u64;
    elf.extend([1_u32, 5].iter().flat_map(|field| field.to_le_bytes()));
    elf.extend([0, STUB_BASE, STUB_BASE, bytes, bytes, PAGE_BYTES].iter().flat_map(|field| field.to_le_bytes()));
    elf.extend(CALL_AND_STOP);

    let name = "colo-guest";
    // Kernels from 6.3 on want to be told that it is to be executed; older ones do not know the flag.
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC))?;
    let mut rest = &elf[..];
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    Ok(file)
}

/// What the child does between fork and exec: system calls, and nothing else. Exits with the number of the step that failed.
fn become_stub(monitor: i32, sources: [RawFd; 4]) -> ! {
    // SAFETY: plain system calls with numbers, and pointers to values that live as long as they do.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // The monitor may have died before that.
        if libc::getppid() != monitor {
            libc::_exit(1);
        }
        // A signal that the monitor's thread blocks would never stop the guest.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        let mut spares = [0; 4];
        for (spare, source) in spares.iter_mut().zip(sources) {
            *spare = libc::fcntl(source, libc::F_DUPFD, SPARE_FD);
        }
        for (spare, target) in spares.into_iter().zip([DOORBELL_FD, DISK_DOORBELL_FD, RAM_FD, STUB_FD]) {
            if libc::dup2(spare, target) < 0 {
                libc::_exit(2);
            }
        }
        libc::fcntl(STUB_FD, libc::F_SETFD, libc::FD_CLOEXEC);
        if libc::syscall(libc::SYS_close_range, STUB_FD + 1, u32::MAX, 0) < 0
            || libc::syscall(libc::SYS_close_range, 0, DOORBELL_FD - 1, 0) < 0
        {
            libc::_exit(3);
        }
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) < 0 {
            libc::_exit(4);
        }
        let arguments = [c"colo-guest".as_ptr(), std::ptr::null()];
        let environment: [*const libc::c_char; 1] = [std::ptr::null()];
        libc::syscall(
            libc::SYS_execveat,
            STUB_FD,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        libc::_exit(5)
    }
}
