//! The two functions of the C library that Xen's libraries make necessary: their results are freed with `free`, and their messages
//! come as a format with a `va_list`.

use crate::toollog::__va_list_tag;
use std::os::raw::{c_char, c_int, c_void};

unsafe extern "C" {
    /// Frees what a library allocated for its caller.
    ///
    /// # Safety
    /// `pointer` comes from C's allocator, or is null, and is not used after.
    pub fn free(pointer: *mut c_void);

    /// Writes at most `size` bytes, the 0 at the end among them, and returns how many it would have liked to write, without it.
    ///
    /// # Safety
    /// `buffer` has `size` bytes; `arguments` are what `format` asks for.
    pub fn vsnprintf(buffer: *mut c_char, size: usize, format: *const c_char, arguments: *mut __va_list_tag) -> c_int;
}
