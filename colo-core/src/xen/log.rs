//! What Xen's libraries say, in [`tracing`]. Without a logger of ours they would write to stderr.

use std::ffi::CStr;
use std::os::raw::{c_char, c_int, c_ulong};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tracing::{debug, error, info, warn};
use xen_sys::toollog::{
    __va_list_tag, xentoollog_level, xentoollog_level_XTL_CRITICAL as XTL_CRITICAL,
    xentoollog_level_XTL_INFO as XTL_INFO, xentoollog_level_XTL_NONE as XTL_NONE,
    xentoollog_level_XTL_WARN as XTL_WARN, xentoollog_logger,
};

/// The longest message; what is beyond is cut off.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Wrapped to be shareable: it holds three addresses of functions, and nobody writes to it.
struct Shared(xentoollog_logger);

// SAFETY: the functions keep no state, and may be called from any thread at the same time.
unsafe impl Sync for Shared {}

static LOGGER: Shared =
    Shared(xentoollog_logger { vmessage: Some(vmessage), progress: Some(progress), destroy: Some(destroy) });

/// Our logger, as the libraries want it. They read it only.
pub(super) fn logger() -> *mut xentoollog_logger {
    (&raw const LOGGER.0).cast_mut()
}

unsafe extern "C" fn vmessage(
    _logger: *mut xentoollog_logger,
    level: xentoollog_level,
    errno: c_int,
    context: *const c_char,
    format: *const c_char,
    arguments: *mut __va_list_tag,
) {
    // A panic must not run through C.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let mut buffer = [0_u8; MAX_MESSAGE_BYTES];
        // SAFETY: the buffer has that many bytes; format and arguments fit each other, as the caller (C) promises.
        let wanted = unsafe { xen_sys::sys::vsnprintf(buffer.as_mut_ptr().cast(), buffer.len(), format, arguments) };
        let text = match usize::try_from(wanted) {
            Ok(wanted) => String::from_utf8_lossy(&buffer[..wanted.min(buffer.len() - 1)]),
            Err(_) => "a message that cannot be formatted".into(),
        };
        // SAFETY: null, or a string of C's that lives until we return.
        let context = unsafe { optional_text(context) };
        message(level, errno, &context, text.trim_end());
    }));
}

/// # Safety
/// `text` is null or a C string.
unsafe fn optional_text(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: it is a C string, as our caller promises.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
    }
}

fn message(level: xentoollog_level, errno: c_int, context: &str, text: &str) {
    let system = match errno {
        -1 => String::new(),
        errno => format!(": {}", std::io::Error::from_raw_os_error(errno)),
    };
    match level {
        XTL_NONE => {}
        level if level < XTL_INFO => debug!(target: "xen", context, "{text}{system}"),
        level if level < XTL_WARN => info!(target: "xen", context, "{text}{system}"),
        XTL_WARN => warn!(target: "xen", context, "{text}{system}"),
        level if level <= XTL_CRITICAL => error!(target: "xen", context, "{text}{system}"),
        // A level that a newer library has: better seen than lost.
        _ => warn!(target: "xen", context, "{text}{system}"),
    }
}

/// We have progress of our own.
unsafe extern "C" fn progress(
    _logger: *mut xentoollog_logger,
    _context: *const c_char,
    _doing_what: *const c_char,
    _percent: c_int,
    _done: c_ulong,
    _total: c_ulong,
) {
}

/// The logger lives as long as the process.
unsafe extern "C" fn destroy(_logger: *mut xentoollog_logger) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing::Level;
    use xen_sys::toollog::{xentoollog_level_XTL_DEBUG as XTL_DEBUG, xentoollog_level_XTL_ERROR as XTL_ERROR};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the calls log, as lines.
    fn logged(calls: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(Level::DEBUG)
            .without_time()
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, calls);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn levels_keep_their_meaning() {
        let lines = logged(|| {
            for level in 0..=11 {
                message(level, -1, "xc", "text");
            }
            message(XTL_ERROR, 3, "xc", "failed");
        });
        let levels: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let expected = "DEBUG DEBUG DEBUG DEBUG INFO INFO WARN ERROR ERROR WARN WARN ERROR";
        assert_eq!(levels.join(" "), expected);
        assert_eq!(lines[12 - 1], r#"ERROR xen: failed: No such process (os error 3) context="xc""#);
    }

    /// Through Xen's own library: the variable arguments arrive, and what is too long is cut off.
    #[test]
    fn the_librarys_messages_arrive() {
        let Some(xen) = crate::xen::tests::libraries() else { return };
        let long = std::ffi::CString::new("x".repeat(3 * MAX_MESSAGE_BYTES)).unwrap();
        let lines = logged(|| {
            let log = |level, errno, format: &CStr, number: c_int, text: &CStr| {
                // SAFETY: the logger is ours, and the arguments are what the formats below ask for.
                unsafe {
                    (xen.0.toollog.xtl_log)(
                        logger(),
                        level,
                        errno,
                        c"test".as_ptr(),
                        format.as_ptr(),
                        number,
                        text.as_ptr(),
                    );
                }
            };
            log(XTL_DEBUG, -1, c"domain %d: %s", 3, c"asleep");
            log(XTL_ERROR, 22, c"%d times %s", -1, c"nothing");
            log(XTL_WARN, -1, c"%d%s", 1, &long);
            // SAFETY: the logger is ours. Progress is not logged.
            unsafe { xen.0.toollog.xtl_progress(logger(), c"test".as_ptr(), c"copying".as_ptr(), 1, 2) };
        });
        assert_eq!(lines[0], r#"DEBUG xen: domain 3: asleep context="test""#);
        assert_eq!(lines[1], r#"ERROR xen: -1 times nothing: Invalid argument (os error 22) context="test""#);
        assert_eq!(lines[2], format!(r#"WARN xen: 1{} context="test""#, "x".repeat(MAX_MESSAGE_BYTES - 2)));
        assert_eq!(lines.len(), 3);
    }
}
