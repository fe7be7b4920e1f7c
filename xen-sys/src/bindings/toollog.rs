// Made by regenerate.sh: do not edit.

pub type va_list = __builtin_va_list;
pub const xentoollog_level_XTL_NONE: xentoollog_level = 0;
pub const xentoollog_level_XTL_DEBUG: xentoollog_level = 1;
pub const xentoollog_level_XTL_VERBOSE: xentoollog_level = 2;
pub const xentoollog_level_XTL_DETAIL: xentoollog_level = 3;
pub const xentoollog_level_XTL_PROGRESS: xentoollog_level = 4;
pub const xentoollog_level_XTL_INFO: xentoollog_level = 5;
pub const xentoollog_level_XTL_NOTICE: xentoollog_level = 6;
pub const xentoollog_level_XTL_WARN: xentoollog_level = 7;
pub const xentoollog_level_XTL_ERROR: xentoollog_level = 8;
pub const xentoollog_level_XTL_CRITICAL: xentoollog_level = 9;
pub const xentoollog_level_XTL_NUM_LEVELS: xentoollog_level = 10;
pub type xentoollog_level = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xentoollog_logger {
    pub vmessage: ::std::option::Option<
        unsafe extern "C" fn(
            logger: *mut xentoollog_logger,
            level: xentoollog_level,
            errnoval: ::std::os::raw::c_int,
            context: *const ::std::os::raw::c_char,
            format: *const ::std::os::raw::c_char,
            al: *mut __va_list_tag,
        ),
    >,
    pub progress: ::std::option::Option<
        unsafe extern "C" fn(
            logger: *mut xentoollog_logger,
            context: *const ::std::os::raw::c_char,
            doing_what: *const ::std::os::raw::c_char,
            percent: ::std::os::raw::c_int,
            done: ::std::os::raw::c_ulong,
            total: ::std::os::raw::c_ulong,
        ),
    >,
    pub destroy: ::std::option::Option<unsafe extern "C" fn(logger: *mut xentoollog_logger)>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xentoollog_logger"][::std::mem::size_of::<xentoollog_logger>() - 24usize];
    ["Alignment of xentoollog_logger"][::std::mem::align_of::<xentoollog_logger>() - 8usize];
    ["Offset of field: xentoollog_logger::vmessage"][::std::mem::offset_of!(xentoollog_logger, vmessage) - 0usize];
    ["Offset of field: xentoollog_logger::progress"][::std::mem::offset_of!(xentoollog_logger, progress) - 8usize];
    ["Offset of field: xentoollog_logger::destroy"][::std::mem::offset_of!(xentoollog_logger, destroy) - 16usize];
};
pub type __builtin_va_list = [__va_list_tag; 1usize];
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct __va_list_tag {
    pub gp_offset: ::std::os::raw::c_uint,
    pub fp_offset: ::std::os::raw::c_uint,
    pub overflow_arg_area: *mut ::std::os::raw::c_void,
    pub reg_save_area: *mut ::std::os::raw::c_void,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of __va_list_tag"][::std::mem::size_of::<__va_list_tag>() - 24usize];
    ["Alignment of __va_list_tag"][::std::mem::align_of::<__va_list_tag>() - 8usize];
    ["Offset of field: __va_list_tag::gp_offset"][::std::mem::offset_of!(__va_list_tag, gp_offset) - 0usize];
    ["Offset of field: __va_list_tag::fp_offset"][::std::mem::offset_of!(__va_list_tag, fp_offset) - 4usize];
    ["Offset of field: __va_list_tag::overflow_arg_area"]
        [::std::mem::offset_of!(__va_list_tag, overflow_arg_area) - 8usize];
    ["Offset of field: __va_list_tag::reg_save_area"][::std::mem::offset_of!(__va_list_tag, reg_save_area) - 16usize];
};
pub struct XenToollog {
    __library: ::libloading::Library,
    pub xtl_log: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        level: xentoollog_level,
        errnoval: ::std::os::raw::c_int,
        context: *const ::std::os::raw::c_char,
        format: *const ::std::os::raw::c_char,
        ...
    ),
    pub xtl_progress: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        context: *const ::std::os::raw::c_char,
        doing_what: *const ::std::os::raw::c_char,
        done: ::std::os::raw::c_ulong,
        total: ::std::os::raw::c_ulong,
    ),
}
impl XenToollog {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = ::libloading::Library::new(path)?;
        Self::from_library(library)
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let xtl_log = __library.get(b"xtl_log\0").map(|sym| *sym)?;
        let xtl_progress = __library.get(b"xtl_progress\0").map(|sym| *sym)?;
        Ok(XenToollog { __library, xtl_log, xtl_progress })
    }
    pub unsafe fn xtl_progress(
        &self,
        logger: *mut xentoollog_logger,
        context: *const ::std::os::raw::c_char,
        doing_what: *const ::std::os::raw::c_char,
        done: ::std::os::raw::c_ulong,
        total: ::std::os::raw::c_ulong,
    ) {
        (self.xtl_progress)(logger, context, doing_what, done, total)
    }
}
