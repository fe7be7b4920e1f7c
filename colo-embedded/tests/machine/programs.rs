//! Guest programs of a few instructions, each for one question. They do not depend on where they are loaded.

use colo_embedded::abi::IMAGE_BASE;
use std::arch::global_asm;

/// A page that test and program talk through. Word 0 is the test's "go", cleared by the program when it is done.
pub(crate) const CONTROL: u64 = IMAGE_BASE + 0x10000;
/// Four pages of arguments.
pub(crate) const LIST: u64 = CONTROL + 0x1000;
/// Where programs put their data: 8 MiB into memory.
pub(crate) const DATA: u64 = IMAGE_BASE + (4 << 20);

macro_rules! program {
    ($(#[$doc:meta])* $name:ident, $code:literal) => {
        global_asm!(
            concat!(".pushsection .rodata\n.global ", stringify!($name), "_start\n", stringify!($name), "_start:\n"),
            ".set RAM_BASE, 0x100000000",
            ".set SHARED, 0x100001000",
            ".set CONTROL, 0x100410000",
            ".set DATA, 0x100800000",
            $code,
            concat!(".global ", stringify!($name), "_end\n", stringify!($name), "_end:\n.popsection"),
        );
        $(#[$doc])*
        pub(crate) fn $name() -> Vec<u8> {
            mod symbols {
                unsafe extern "C" {
                    #[link_name = concat!(stringify!($name), "_start")]
                    pub(crate) static START: u8;
                    #[link_name = concat!(stringify!($name), "_end")]
                    pub(crate) static END: u8;
                }
            }
            let (start, end) = (&raw const symbols::START, &raw const symbols::END);
            // SAFETY: the two symbols enclose the program's code, which is constant data.
            elf(unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) })
        }
    };
}

program! {
    /// On "go" with a count: adds word 1 to the word at 128 in each of so many pages, whose numbers are at `LIST`.
    dirtier,
    "
        movabs r15, offset CONTROL
    2:  pause
        mov rcx, [r15]
        test rcx, rcx
        jz 2b
        lea rsi, [r15 + 0x1000]
        mov rdx, [r15 + 8]
    3:  mov rax, [rsi]
        shl rax, 12
        add [rdi + rax + 128], rdx
        add rsi, 8
        dec rcx
        jnz 3b
        mov qword ptr [r15], 0
        jmp 2b
    "
}

program! {
    /// On "go": makes system call number word 1 with arguments of words 2 to 5, and leaves its result in word 6.
    caller,
    "
        movabs r15, offset CONTROL
    2:  pause
        cmp qword ptr [r15], 0
        je 2b
        mov rax, [r15 + 8]
        mov rdi, [r15 + 16]
        mov rsi, [r15 + 24]
        mov rdx, [r15 + 32]
        mov r10, [r15 + 40]
        syscall
        mov [r15 + 48], rax
        mov qword ptr [r15], 0
        jmp 2b
    "
}

program! {
    /// Does as many steps of a pseudo-random walk over 1024 pages as word 1 says, keeping count in a general register and in both
    /// halves of a vector register at once, and in word 2; then shuts down, in order if the counts agreed throughout.
    walker,
    "
        movabs r15, offset CONTROL
        movabs r14, offset DATA
        mov r13, [r15 + 8]
        movabs r12, 6364136223846793005
        movabs r11, 1442695040888963407
        mov rbx, 1
        xor eax, eax
        movabs rcx, 0x3ff0000000000000
        movq xmm1, rcx
        unpcklpd xmm1, xmm1
        xorpd xmm0, xmm0
    2:  imul rbx, r12
        add rbx, r11
        mov rcx, rbx
        shr rcx, 33
        and rcx, 0x3ff
        shl rcx, 12
        mov rdx, rbx
        shr rdx, 20
        and rdx, 0xff8
        add rcx, rdx
        xor [r14 + rcx], rbx
        inc rax
        addpd xmm0, xmm1
        cvttsd2si rcx, xmm0
        cmp rcx, rax
        jne 3f
        movapd xmm2, xmm0
        unpckhpd xmm2, xmm2
        cvttsd2si rcx, xmm2
        cmp rcx, rax
        jne 3f
        mov [r15 + 16], rax
        dec r13
        jnz 2b
        xor edi, edi
        mov eax, 0x1001
        syscall
    3:  mov edi, 7
        mov eax, 0x1001
        syscall
    "
}

program! {
    /// Counts in a general register and in the upper half of a 256-bit register, leaves the count in word 2, and gives up when
    /// they differ.
    wide_counter,
    "
        movabs r15, offset CONTROL
        xor eax, eax
        movabs rcx, 0x3ff0000000000000
        vmovq xmm1, rcx
        vinsertf128 ymm1, ymm1, xmm1, 1
        vxorpd ymm0, ymm0, ymm0
    2:  inc rax
        vaddpd ymm0, ymm0, ymm1
        vextractf128 xmm2, ymm0, 1
        vcvttsd2si rcx, xmm2
        cmp rcx, rax
        jne 3f
        mov [r15 + 16], rax
        jmp 2b
    3:  mov edi, 7
        mov eax, 0x1001
        syscall
    "
}

program! {
    /// Sends back each frame that it gets, and sleeps in between, with the time-out whose address is word 1 (or none). Word 2 is the
    /// last result of its sleep, word 3 counts sleeps.
    echo,
    "
        movabs rbp, offset CONTROL
        movabs r15, offset SHARED
        movabs r14, offset RAM_BASE
    2:  mov dword ptr [r15 + 4], 1
        mfence
        mov ebx, [r15]
        mov ecx, [r15 + 20]
        cmp ecx, [r15 + 16]
        jne 4f
    3:  mov rdi, r15
        xor esi, esi
        mov edx, ebx
        mov r10, [rbp + 8]
        mov eax, 202
        syscall
        mov [rbp + 16], rax
        inc qword ptr [rbp + 24]
        jmp 2b
    4:  mov eax, [r15 + 24]
        mov edx, eax
        sub edx, [r15 + 28]
        cmp edx, 512
        jb 5f
        mov dword ptr [r15 + 12], 1
        mfence
        mov edx, eax
        sub edx, [r15 + 28]
        cmp edx, 512
        jae 3b
    5:  mov dword ptr [r15 + 4], 0
        and ecx, 511
        shl ecx, 11
        lea rsi, [r14 + rcx + 0x2000]
        and eax, 511
        shl eax, 11
        lea rdi, [r14 + rax + 0x102000]
        mov ecx, 2048
        rep movsb
        inc dword ptr [r15 + 20]
        inc dword ptr [r15 + 24]
        mfence
        xor eax, eax
        xchg [r15 + 8], eax
        test eax, eax
        jz 2b
        mov qword ptr [rbp + 32], 1
        mov edi, 3
        lea rsi, [rbp + 32]
        mov edx, 8
        mov eax, 1
        syscall
        jmp 2b
    "
}

program! {
    /// Writes nonsense over the words that it shares with the monitor, and over the lengths in the transmit ring, and counts in
    /// word 2.
    scribbler,
    "
        movabs rbp, offset CONTROL
        movabs r15, offset SHARED
        movabs r14, offset RAM_BASE + 0x102000
        movabs r12, 6364136223846793005
        movabs r11, 1442695040888963407
        mov rbx, 1
    2:  imul rbx, r12
        add rbx, r11
        mov rcx, rbx
        shr rcx, 40
        mov rdx, rbx
        shr rdx, 32
        and edx, 15
        mov [r15 + rdx * 4], ecx
        mov rdx, rbx
        shr rdx, 50
        and edx, 511
        shl edx, 11
        mov [r14 + rdx], ecx
        shr ecx, 13
        test rbx, 0x10000000
        jz 3f
        mov [r14 + rdx], ecx
        mov ecx, [r15 + 28]
        add ecx, 7
        mov [r15 + 24], ecx
    3:  inc qword ptr [rbp + 16]
        jmp 2b
    "
}

program! {
    /// On "go": puts words 1 to 4 into the disk ring as a request, rings if it is asked to, waits until the request is done, and leaves
    /// the slot's first word (operation and status) in word 5. Word 6 counts how often it rang.
    disk_user,
    "
        movabs r15, offset CONTROL
        movabs r14, offset SHARED
        movabs r13, offset RAM_BASE + 0x202000
    2:  pause
        cmp qword ptr [r15], 0
        je 2b
        mov ebx, [r14 + 48]
        mov ecx, ebx
        and ecx, 63
        shl ecx, 5
        lea rdi, [r13 + rcx]
        mov r12, rdi
        lea rsi, [r15 + 8]
        mov ecx, 32
        rep movsb
        inc ebx
        mov [r14 + 48], ebx
        mfence
        xor eax, eax
        xchg [r14 + 36], eax
        test eax, eax
        jz 3f
        inc qword ptr [r15 + 48]
        mov qword ptr [r15 + 56], 1
        mov edi, 4
        lea rsi, [r15 + 56]
        mov edx, 8
        mov eax, 1
        syscall
    3:  pause
        cmp [r14 + 52], ebx
        jne 3b
        mov rax, [r12]
        mov [r15 + 40], rax
        mov qword ptr [r15], 0
        jmp 2b
    "
}

/// A program of these bytes alone.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2_u16, 62, 1, 0].iter().flat_map(|field| field.to_le_bytes()));
    elf.extend([IMAGE_BASE, 64, 0].iter().flat_map(|field| field.to_le_bytes()));
    elf.extend([0_u16, 0, 64, 56, 1, 64, 0, 0].iter().flat_map(|field| field.to_le_bytes()));
    elf.extend([1_u32, 5].iter().flat_map(|field| field.to_le_bytes()));
    let bytes = code.len() as u64;
    elf.extend([120, IMAGE_BASE, IMAGE_BASE, bytes, bytes, 4096].iter().flat_map(|field| field.to_le_bytes()));
    elf.extend(code);
    elf
}
