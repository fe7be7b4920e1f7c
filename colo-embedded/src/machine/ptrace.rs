//! ptrace(2), one safe call for each request that is used. All of them must come from the thread that started the process.

use super::registers::{General, MAX_XSTATE_BYTES, Registers};
use std::io;

/// `NT_X86_XSTATE` of `linux/elf.h`: the register set that holds the extended state.
const NT_X86_XSTATE: libc::c_int = 0x202;
/// `PTRACE_EVENT_SECCOMP` of `linux/ptrace.h`.
const EVENT_SECCOMP: i32 = 7;
/// `PTRACE_O_TRACESECCOMP` and `PTRACE_O_EXITKILL`: stop at what the filter traces; and die with the tracer.
const OPTIONS: libc::c_ulong = 1 << 7 | 1 << 20;

/// What the kernel's signal code returns from an interrupted system call, to be restarted or not: `ERESTARTSYS`,
/// `ERESTARTNOINTR`, `ERESTARTNOHAND`, `ERESTART_RESTARTBLOCK` (`include/linux/errno.h`; never seen by programs).
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];

/// `orig_rax` when the process is not in a system call.
const NO_SYSTEM_CALL: u64 = u64::MAX;

/// Why a traced process has stopped, or that it is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// A signal is about to be delivered.
    Signal(i32),
    /// The seccomp filter wants a word about a system call; the filter's data.
    Seccomp(u16),
    /// The process has exited with that code.
    Exited(i32),
    /// The process was killed by that signal.
    Killed(i32),
}

/// A process that the calling thread traces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracee(pub(crate) i32);

impl Tracee {
    /// Waits until the process stops or ends.
    pub(crate) fn wait(self) -> io::Result<Stop> {
        loop {
            let mut status = 0;
            // SAFETY: the status is written to a variable of ours.
            if unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            if libc::WIFEXITED(status) {
                return Ok(Stop::Exited(libc::WEXITSTATUS(status)));
            }
            if libc::WIFSIGNALED(status) {
                return Ok(Stop::Killed(libc::WTERMSIG(status)));
            }
            return Ok(match status >> 16 {
                EVENT_SECCOMP => Stop::Seccomp(self.event_message()? as u16),
                _ => Stop::Signal(libc::WSTOPSIG(status)),
            });
        }
    }

    /// Lets the stopped process go on. The signal that it was stopped for is not delivered.
    pub(crate) fn resume(self) -> io::Result<()> {
        self.request(libc::PTRACE_CONT, 0, 0)
    }

    /// Ties the process' life to the tracer's, and has the filter's traced calls reported.
    pub(crate) fn set_options(self) -> io::Result<()> {
        self.request(libc::PTRACE_SETOPTIONS, 0, OPTIONS)
    }

    /// Where a fault of the stopped process was, if its signal is the processor's and not another process'.
    pub(crate) fn fault_address(self) -> io::Result<Option<u64>> {
        // SAFETY: all zeroes are a value of this C structure.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETSIGINFO, 0, &raw mut info as libc::c_ulong)?;
        // SAFETY: the field is read for signals of faults only, for which the kernel has filled it.
        Ok((info.si_code > 0).then(|| unsafe { info.si_addr() } as u64))
    }

    /// The user area's registers as the kernel has them.
    pub(crate) fn raw_registers(self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: all zeroes are a value of this C structure.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETREGS, 0, &raw mut registers as libc::c_ulong)?;
        Ok(registers)
    }

    pub(crate) fn set_raw_registers(self, registers: &libc::user_regs_struct) -> io::Result<()> {
        self.request(libc::PTRACE_SETREGS, 0, &raw const *registers as libc::c_ulong)
    }

    /// Makes the registers depend on nothing but what is in them: a system call that was interrupted ends with `EINTR`, rather
    /// than being started again by a kernel that remembers it.
    pub(crate) fn leave_system_call(self) -> io::Result<()> {
        let mut registers = self.raw_registers()?;
        if registers.orig_rax != NO_SYSTEM_CALL {
            if (registers.orig_rax as i64) >= 0 && RESTARTS.contains(&(registers.rax as i64)) {
                registers.rax = i64::from(-libc::EINTR) as u64;
            }
            registers.orig_rax = NO_SYSTEM_CALL;
            self.set_raw_registers(&registers)?;
        }
        Ok(())
    }

    /// Answers the system call that the filter has traced: it is not made, and returns `result`.
    pub(crate) fn answer_system_call(self, result: i64) -> io::Result<()> {
        let mut registers = self.raw_registers()?;
        registers.orig_rax = NO_SYSTEM_CALL;
        registers.rax = result as u64;
        self.set_raw_registers(&registers)
    }

    /// All registers. The process must have left its system call.
    pub(crate) fn registers(self) -> io::Result<Registers> {
        let raw = self.raw_registers()?;
        let general = General {
            r15: raw.r15,
            r14: raw.r14,
            r13: raw.r13,
            r12: raw.r12,
            rbp: raw.rbp,
            rbx: raw.rbx,
            r11: raw.r11,
            r10: raw.r10,
            r9: raw.r9,
            r8: raw.r8,
            rax: raw.rax,
            rcx: raw.rcx,
            rdx: raw.rdx,
            rsi: raw.rsi,
            rdi: raw.rdi,
            rip: raw.rip,
            rflags: raw.eflags,
            rsp: raw.rsp,
            fs_base: raw.fs_base,
            gs_base: raw.gs_base,
        };
        Ok(Registers { general, xstate: self.xstate()? })
    }

    /// Sets all registers, the segments' selectors excepted, and forgets any system call.
    pub(crate) fn set_registers(self, registers: &Registers) -> io::Result<()> {
        // The kernel is more particular about these, so they come first: if they fail, nothing has changed.
        self.set_xstate(&registers.xstate)?;
        let General {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            rip,
            rflags,
            rsp,
            fs_base,
            gs_base,
        } = registers.general;
        let raw = libc::user_regs_struct {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax: NO_SYSTEM_CALL,
            rip,
            eflags: rflags,
            rsp,
            fs_base,
            gs_base,
            ..self.raw_registers()?
        };
        self.set_raw_registers(&raw)
    }

    fn xstate(self) -> io::Result<Vec<u8>> {
        let mut xstate = vec![0; MAX_XSTATE_BYTES];
        let mut vector = libc::iovec { iov_base: xstate.as_mut_ptr().cast(), iov_len: xstate.len() };
        self.request(libc::PTRACE_GETREGSET, NT_X86_XSTATE, &raw mut vector as libc::c_ulong)?;
        if vector.iov_len >= xstate.len() {
            return Err(io::Error::other("this processor has more extended state than colo knows of"));
        }
        xstate.truncate(vector.iov_len);
        Ok(xstate)
    }

    fn set_xstate(self, xstate: &[u8]) -> io::Result<()> {
        let vector = libc::iovec { iov_base: xstate.as_ptr().cast_mut().cast(), iov_len: xstate.len() };
        self.request(libc::PTRACE_SETREGSET, NT_X86_XSTATE, &raw const vector as libc::c_ulong)
    }

    fn event_message(self) -> io::Result<u64> {
        let mut message: libc::c_ulong = 0;
        self.request(libc::PTRACE_GETEVENTMSG, 0, &raw mut message as libc::c_ulong)?;
        Ok(message)
    }

    /// `data` must be what the request wants: a number, or the address of its structure.
    fn request(self, request: libc::c_uint, address: libc::c_int, data: libc::c_ulong) -> io::Result<()> {
        // SAFETY: the callers above give each request the structure, alive during the call, that it reads or fills.
        let result = unsafe { libc::ptrace(request, self.0, address as libc::c_ulong, data) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
