//! The filter that makes system calls into hypercalls: what `abi.rs` allows is let through with its arguments checked, all
//! else is reported to the monitor.

use super::abi::{DISK_DOORBELL_FD, DOORBELL_FD, HYPERCALL_CONSOLE, HYPERCALL_SHUTDOWN, PAGE_BYTES, RAM_BASE, Shared};
use std::mem::offset_of;

/// Data of a traced call that is a hypercall.
pub(crate) const TRACE_HYPERCALL: u16 = 1;
/// Data of a traced call that no guest may make.
pub(crate) const TRACE_FORBIDDEN: u16 = 2;

// Numbers of `linux/seccomp.h` and `linux/audit.h`.
const RET_ALLOW: u32 = 0x7FFF_0000;
const RET_TRACE: u32 = 0x7FF0_0000;
const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;

// Where `struct seccomp_data` has what a filter looks at.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

// Classic BPF: `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    operand: u32,
}

/// A condition: the 32-bit word of the call's data at this offset is this.
type Word = (u32, u32);

/// The filter, as the bytes of an array of `struct sock_filter`.
pub(crate) fn filter_bytes() -> Vec<u8> {
    filter().iter().flat_map(|instruction| instruction.to_bytes()).collect()
}

/// Bytes of one instruction.
pub(crate) const INSTRUCTION_BYTES: usize = 8;

impl Instruction {
    fn to_bytes(self) -> [u8; INSTRUCTION_BYTES] {
        let [c0, c1] = self.code.to_le_bytes();
        let [k0, k1, k2, k3] = self.operand.to_le_bytes();
        [c0, c1, self.jump_true, self.jump_false, k0, k1, k2, k3]
    }
}

fn filter() -> Vec<Instruction> {
    let event = RAM_BASE + PAGE_BYTES + offset_of!(Shared, event) as u64;
    let arch = (ARCH, AUDIT_ARCH_X86_64);
    let number = |number: libc::c_long| (NUMBER, number as u32);
    // File descriptors, clocks and futex operations are 32 bits wide to the kernel; addresses and lengths 64.
    let (futex_address, length) = (argument(0, event), argument(2, 8));
    let wait = (argument_low(1), libc::FUTEX_WAIT as u32);
    let monotonic = (argument_low(0), libc::CLOCK_MONOTONIC as u32);
    let [card, disk] = [DOORBELL_FD, DISK_DOORBELL_FD].map(|fd| (argument_low(0), fd as u32));
    let rules: [(&[Word], u32); 6] = [
        (&[arch, number(libc::SYS_futex), futex_address[0], futex_address[1], wait], RET_ALLOW),
        (&[arch, number(libc::SYS_write), card, length[0], length[1]], RET_ALLOW),
        (&[arch, number(libc::SYS_write), disk, length[0], length[1]], RET_ALLOW),
        (&[arch, number(libc::SYS_clock_gettime), monotonic], RET_ALLOW),
        (&[arch, (NUMBER, HYPERCALL_CONSOLE as u32)], RET_TRACE | TRACE_HYPERCALL as u32),
        (&[arch, (NUMBER, HYPERCALL_SHUTDOWN as u32)], RET_TRACE | TRACE_HYPERCALL as u32),
    ];
    let mut filter = Vec::new();
    for (words, verdict) in rules {
        push_rule(&mut filter, words, verdict);
    }
    filter.push(Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: RET_TRACE | TRACE_FORBIDDEN as u32 });
    filter
}

/// Gives the verdict if all words are as they must be, else goes on behind the rule.
fn push_rule(filter: &mut Vec<Instruction>, words: &[Word], verdict: u32) {
    for (index, &(offset, value)) in words.iter().enumerate() {
        // Two instructions for each word still to come, and the verdict.
        let to_next_rule = (2 * (words.len() - index - 1) + 1) as u8;
        filter.push(Instruction { code: LOAD_WORD, jump_true: 0, jump_false: 0, operand: offset });
        filter.push(Instruction { code: JUMP_IF_EQUAL, jump_true: 0, jump_false: to_next_rule, operand: value });
    }
    filter.push(Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: verdict });
}

/// Both halves of an argument.
fn argument(index: u32, value: u64) -> [Word; 2] {
    [(argument_low(index), value as u32), (argument_low(index) + 4, (value >> 32) as u32)]
}

fn argument_low(index: u32) -> u32 {
    ARGUMENTS + index * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says to a call, by an interpreter of the three instructions that it is made of.
    fn verdict(arch: u32, number: u32, arguments: [u64; 3]) -> u32 {
        let mut data = [number, arch, 0, 0].map(u32::to_le_bytes).concat();
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let filter = filter();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, jump_true, jump_false, operand } = filter[at];
            at += 1;
            match code {
                LOAD_WORD => {
                    let word = data[operand as usize..].first_chunk().unwrap();
                    accumulator = u32::from_le_bytes(*word);
                }
                JUMP_IF_EQUAL => {
                    let jump = if accumulator == operand { jump_true } else { jump_false };
                    at += usize::from(jump);
                }
                RETURN => return operand,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn allows_what_the_contract_allows_and_nothing_else() {
        let event = RAM_BASE + PAGE_BYTES;
        let forbidden = RET_TRACE | u32::from(TRACE_FORBIDDEN);
        let hypercall = RET_TRACE | u32::from(TRACE_HYPERCALL);
        let cases = [
            (202, [event, 0, 0], RET_ALLOW),
            (202, [event + 4, 0, 0], forbidden),
            (202, [event & 0xFFFF_FFFF, 0, 0], forbidden),
            (202, [event, 1, 0], forbidden),
            (202, [event, 128, 0], forbidden),
            (1, [3, 0x1234, 8], RET_ALLOW),
            (1, [4, 0x1234, 8], RET_ALLOW),
            (1, [4, 0x1234, 16], forbidden),
            (1, [5, 0x1234, 8], forbidden),
            (1, [2, 0x1234, 8], forbidden),
            (1, [3, 0x1234, 9], forbidden),
            (1, [3, 0x1234, 8 | 1 << 32], forbidden),
            (228, [1, 0, 0], RET_ALLOW),
            (228, [0, 0, 0], forbidden),
            (0x1000, [0, 0, 0], hypercall),
            (0x1001, [0, 0, 0], hypercall),
            (0x1002, [0, 0, 0], forbidden),
            (0, [3, 0, 8], forbidden),
            (59, [0, 0, 0], forbidden),
            (0x4000_0001, [3, 0, 8], forbidden),
        ];
        for (number, arguments, expected) in cases {
            assert_eq!(verdict(AUDIT_ARCH_X86_64, number, arguments), expected, "{number} {arguments:x?}");
        }
        assert_eq!(verdict(0x4000_0003, 0x1000, [0; 3]), forbidden, "another architecture");
    }
}
