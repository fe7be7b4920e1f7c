use colo_core::domain::{DomainError, StateRecord};

/// Type of the state record that holds the vCPU's registers.
///
/// Its body, with numbers in little-endian order:
///
/// ```text
/// u32      version, 1
/// u32      length of the extended state in bytes
/// 20 x u64 r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi rip rflags rsp fs_base gs_base
/// bytes    the extended state, as XSAVE lays it out without compaction (Intel's manual, volume 1, chapter 13)
/// ```
///
/// Both hosts must have processors with the same extended state.
pub const EMBEDDED_VCPU: u32 = 0x8000_C001;

/// Type of the state record that holds what else is not in memory: the clock. (The network card is all in memory.)
///
/// Its body: version (`u32`, 1), zero (`u32`), the guest's time in nanoseconds (`i64`), in little-endian order.
pub const EMBEDDED_DEVICES: u32 = 0x8000_C002;

/// The longest extended state: today's largest is 11,008 bytes (with AMX tiles).
pub(crate) const MAX_XSTATE_BYTES: usize = 16 * 1024;

const VCPU_VERSION: u32 = 1;
const DEVICES_VERSION: u32 = 1;
const DEVICES_BYTES: usize = 16;
const GENERAL_COUNT: usize = 20;
const VCPU_HEADER_BYTES: usize = 8 + GENERAL_COUNT * 8;

/// What the processor's extended state holds at these places (legacy area, and header; same chapter).
const MXCSR_OFFSET: usize = 24;
const MXCSR_MASK_OFFSET: usize = 28;
/// Linux puts the enabled features (XCR0) here, into bytes that the processor leaves to software.
const SOFTWARE_FEATURES_OFFSET: usize = 464;
const XSTATE_BV_OFFSET: usize = 512;
const XSTATE_HEADER_END: usize = 576;
/// AMX tiles: a process must ask for them by a system call that guests cannot make.
const TILE_FEATURES: u64 = 1 << 17 | 1 << 18;

/// Addresses from here on cannot be bases of a segment, as far as ptrace is concerned.
const USER_ADDRESS_LIMIT: u64 = 0x7FFF_FFFF_F000;

/// The general registers, in the order of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct General {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) rbp: u64,
    pub(crate) rbx: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rax: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
}

impl General {
    fn to_array(self) -> [u64; GENERAL_COUNT] {
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
        } = self;
        [r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, rip, rflags, rsp, fs_base, gs_base]
    }

    fn from_array(values: [u64; GENERAL_COUNT]) -> General {
        let [
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
        ] = values;
        General {
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
        }
    }
}

/// All registers of the vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Registers {
    pub(crate) general: General,
    /// The extended state.
    pub(crate) xstate: Vec<u8>,
}

impl Registers {
    pub(crate) fn to_record(&self) -> StateRecord {
        let mut body = Vec::with_capacity(VCPU_HEADER_BYTES + self.xstate.len());
        body.extend_from_slice(&VCPU_VERSION.to_le_bytes());
        body.extend_from_slice(&(self.xstate.len() as u32).to_le_bytes());
        for value in self.general.to_array() {
            body.extend_from_slice(&value.to_le_bytes());
        }
        body.extend_from_slice(&self.xstate);
        StateRecord { kind: EMBEDDED_VCPU, body }
    }
}

/// What this host's processor, and the domain's memory, allow registers to be.
#[derive(Clone, Debug)]
pub(crate) struct RegisterLimits {
    xstate_bytes: usize,
    features: u64,
    mxcsr_mask: u32,
    /// Where code can be.
    code: std::ops::Range<u64>,
}

impl RegisterLimits {
    /// From the extended state of a fresh process on this host.
    pub(crate) fn new(fresh_xstate: &[u8], code: std::ops::Range<u64>) -> Option<RegisterLimits> {
        if fresh_xstate.len() < XSTATE_HEADER_END {
            return None;
        }
        Some(RegisterLimits {
            xstate_bytes: fresh_xstate.len(),
            features: u64_at(fresh_xstate, SOFTWARE_FEATURES_OFFSET)? & !TILE_FEATURES,
            mxcsr_mask: u32_at(fresh_xstate, MXCSR_MASK_OFFSET)?,
            code,
        })
    }

    fn check(&self, registers: &Registers) -> Result<(), DomainError> {
        let general = &registers.general;
        if !self.code.contains(&general.rip) {
            return Err(bad(format!("the instruction pointer {:#x} is outside guest memory", general.rip)));
        }
        if general.fs_base >= USER_ADDRESS_LIMIT || general.gs_base >= USER_ADDRESS_LIMIT {
            return Err(bad("a segment base outside a process' addresses".into()));
        }
        let xstate = &registers.xstate;
        if xstate.len() != self.xstate_bytes {
            return Err(bad(format!(
                "{} bytes of extended registers; this host's processor has {}",
                xstate.len(),
                self.xstate_bytes
            )));
        }
        let features = u64_at(xstate, XSTATE_BV_OFFSET).unwrap_or(u64::MAX);
        if features & !self.features != 0 {
            return Err(bad(format!(
                "extended registers {features:#x}; this host's processor has {:#x}",
                self.features
            )));
        }
        if xstate[XSTATE_BV_OFFSET + 8..XSTATE_HEADER_END].iter().any(|&byte| byte != 0) {
            return Err(bad("the header of the extended registers is not of the standard form".into()));
        }
        if u32_at(xstate, MXCSR_OFFSET).is_none_or(|mxcsr| mxcsr & !self.mxcsr_mask != 0) {
            return Err(bad("MXCSR has bits that this host's processor lacks".into()));
        }
        Ok(())
    }
}

/// What the records of a domain's state say.
#[derive(Debug)]
pub(crate) struct MachineState {
    pub(crate) registers: Registers,
    /// The guest's time in nanoseconds.
    pub(crate) guest_time_ns: i64,
}

impl MachineState {
    pub(crate) fn to_records(&self) -> Vec<StateRecord> {
        let mut devices = Vec::with_capacity(DEVICES_BYTES);
        devices.extend_from_slice(&DEVICES_VERSION.to_le_bytes());
        devices.extend_from_slice(&0_u32.to_le_bytes());
        devices.extend_from_slice(&self.guest_time_ns.to_le_bytes());
        vec![self.registers.to_record(), StateRecord { kind: EMBEDDED_DEVICES, body: devices }]
    }

    /// Reads records that may come from anywhere: what passes here the kernel will take.
    pub(crate) fn from_records(records: &[StateRecord], limits: &RegisterLimits) -> Result<MachineState, DomainError> {
        let [StateRecord { kind: EMBEDDED_VCPU, body: vcpu }, StateRecord { kind: EMBEDDED_DEVICES, body: devices }] =
            records
        else {
            let kinds: Vec<u32> = records.iter().take(8).map(|record| record.kind).collect();
            return Err(bad(format!(
                "records of the types {kinds:#x?}; an embedded machine has one vCPU and its devices"
            )));
        };
        let registers = decode_vcpu(vcpu)?;
        limits.check(&registers)?;
        Ok(MachineState { registers, guest_time_ns: decode_devices(devices)? })
    }
}

fn decode_vcpu(body: &[u8]) -> Result<Registers, DomainError> {
    let (Some(version), Some(xstate_bytes)) = (u32_at(body, 0), u32_at(body, 4)) else {
        return Err(bad("the vCPU's record is cut short".into()));
    };
    if version != VCPU_VERSION {
        return Err(bad(format!("a vCPU record of version {version}; this host knows {VCPU_VERSION}")));
    }
    if xstate_bytes as usize > MAX_XSTATE_BYTES || body.len() != VCPU_HEADER_BYTES + xstate_bytes as usize {
        return Err(bad(format!("a vCPU record of {} bytes with {xstate_bytes} of extended state", body.len())));
    }
    let mut general = [0; GENERAL_COUNT];
    for (index, value) in general.iter_mut().enumerate() {
        *value = u64_at(body, 8 + index * 8).unwrap_or_default();
    }
    Ok(Registers { general: General::from_array(general), xstate: body[VCPU_HEADER_BYTES..].to_vec() })
}

fn decode_devices(body: &[u8]) -> Result<i64, DomainError> {
    if body.len() != DEVICES_BYTES {
        return Err(bad(format!("a device record of {} bytes", body.len())));
    }
    match (u32_at(body, 0), u32_at(body, 4), u64_at(body, 8)) {
        (Some(DEVICES_VERSION), Some(0), Some(time)) => Ok(time as i64),
        (version, ..) => Err(bad(format!("a device record of version {}", version.unwrap_or_default()))),
    }
}

fn bad(reason: String) -> DomainError {
    DomainError::BadState(reason)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const XSTATE_BYTES: usize = 832;

    fn fresh_xstate() -> Vec<u8> {
        let mut xstate = vec![0; XSTATE_BYTES];
        xstate[MXCSR_OFFSET..][..4].copy_from_slice(&0x1F80_u32.to_le_bytes());
        xstate[MXCSR_MASK_OFFSET..][..4].copy_from_slice(&0xFFFF_u32.to_le_bytes());
        xstate[SOFTWARE_FEATURES_OFFSET..][..8].copy_from_slice(&7_u64.to_le_bytes());
        xstate[XSTATE_BV_OFFSET] = 7;
        xstate
    }

    fn limits() -> RegisterLimits {
        RegisterLimits::new(&fresh_xstate(), 0x1000..0x2000).unwrap()
    }

    fn state() -> MachineState {
        let general = General { rip: 0x1234, rax: 1, fs_base: 2, ..General::default() };
        MachineState { registers: Registers { general, xstate: fresh_xstate() }, guest_time_ns: -5 }
    }

    proptest! {
        #[test]
        fn records_carry_every_register(values: [u64; GENERAL_COUNT], guest_time_ns: i64) {
            let mut general = General::from_array(values);
            general.rip = 0x1FFF;
            general.fs_base %= USER_ADDRESS_LIMIT;
            general.gs_base %= USER_ADDRESS_LIMIT;
            let state = MachineState { registers: Registers { general, xstate: fresh_xstate() }, guest_time_ns };
            let decoded = MachineState::from_records(&state.to_records(), &limits()).unwrap();
            prop_assert_eq!(decoded.registers, state.registers);
            prop_assert_eq!(decoded.guest_time_ns, guest_time_ns);
        }

        #[test]
        fn records_cut_short_or_changed_do_no_harm(index in 0_usize..2, cut in 0_usize..1200, at in 0_usize..1200, flip in 1_u8..) {
            let mut records = state().to_records();
            let body = &mut records[index].body;
            let whole = body.len();
            if let Some(byte) = body.get_mut(at) {
                *byte ^= flip;
            }
            body.truncate(cut);
            let result = MachineState::from_records(&records, &limits());
            prop_assert!(cut >= whole || matches!(result, Err(DomainError::BadState(_))));
        }
    }

    #[test]
    fn refuses_what_the_processor_cannot_hold() {
        let spoil: [fn(&mut MachineState); 7] = [
            |state| state.registers.general.rip = 0x2000,
            |state| state.registers.general.gs_base = u64::MAX,
            |state| state.registers.xstate.push(0),
            |state| state.registers.xstate[XSTATE_BV_OFFSET] |= 8,
            |state| state.registers.xstate[XSTATE_BV_OFFSET + 15] = 0x80,
            |state| state.registers.xstate[MXCSR_OFFSET + 3] = 1,
            |state| state.registers.xstate.clear(),
        ];
        for (index, spoil) in spoil.iter().enumerate() {
            let mut state = state();
            spoil(&mut state);
            let result = MachineState::from_records(&state.to_records(), &limits());
            assert!(matches!(result, Err(DomainError::BadState(_))), "case {index}");
        }
    }

    #[test]
    fn refuses_other_records() {
        let records = state().to_records();
        let swapped = [records[1].clone(), records[0].clone()];
        let doubled = [records[0].clone(), records[0].clone(), records[1].clone()];
        for bad in [&records[..1], &swapped, &doubled, &[]] {
            assert!(matches!(MachineState::from_records(bad, &limits()), Err(DomainError::BadState(_))));
        }
    }
}
