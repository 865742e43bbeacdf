//! `kv_set_error` and `kv_log`: exports with variable arguments.
//!
//! Stable Rust cannot define them, and a linker run by rustc does not export functions of a C object. So each export is
//! one jump, which leaves registers and stack as they are, to the function in `variadic.c`; that makes the text and
//! calls back through names that are hidden, so that they do not end up among the exports.
//! (Rust 1.99 can define such functions: then this file and the C one go.)

use super::{arg, error, guard, log as lines};
use libc::{c_char, c_int};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("kv_set_error and kv_log need a jump instruction for this CPU: add one in src/ffi/variadic.rs");

// SAFETY: defined in variadic.c; never called from here, only jumped to.
unsafe extern "C" {
    fn kvb_shim_set_error();
    fn kvb_shim_log();
}

/// Documented in `cbindgen/variadic.rs`, from where the header has it.
// SAFETY: left to the caller, as `arg` says; the jump leaves everything as it is.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_set_error() {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!("jmp {}", sym kvb_shim_set_error);
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!("b {}", sym kvb_shim_set_error);
}

/// Documented in `cbindgen/variadic.rs`, from where the header has it.
// SAFETY: left to the caller, as `arg` says; the jump leaves everything as it is.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_log() {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!("jmp {}", sym kvb_shim_log);
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!("b {}", sym kvb_shim_log);
}

/// Defines the name under which C finds a Rust function, without exporting it.
macro_rules! hidden {
    ($name:literal, $function:ident) => {
        #[cfg(target_arch = "x86_64")]
        hidden!($name, $function, "jmp");
        #[cfg(target_arch = "aarch64")]
        hidden!($name, $function, "b");
    };
    ($name:literal, $function:ident, $jump:literal) => {
        core::arch::global_asm!(
            ".text",
            concat!(".globl ", $name),
            concat!(".hidden ", $name),
            concat!(".type ", $name, ",@function"),
            concat!($name, ":"),
            concat!($jump, " {}"),
            concat!(".size ", $name, ", .-", $name),
            sym $function,
        );
    };
}

hidden!("kvb_rs_set_error", set_error);
hidden!("kvb_rs_log", log);
hidden!("kvb_rs_log_wanted", log_wanted);

/// # Safety
/// Strings or NULL.
unsafe extern "C" fn set_error(code: c_int, file: *const c_char, line: c_int, func: *const c_char, message: *const c_char) {
    // SAFETY: strings or NULL, by the promise that `kv_set_error` asks for.
    guard::pure((), || unsafe { error::record(code, bytes(file), line, bytes(func), bytes(message)) });
}

/// # Safety
/// Strings or NULL.
unsafe extern "C" fn log(level: c_int, file: *const c_char, line: c_int, func: *const c_char, message: *const c_char) {
    // SAFETY: strings or NULL, by the promise that `kv_log` asks for.
    guard::pure((), || unsafe { lines::write(level, bytes(file), line, bytes(func), bytes(message)) });
}

extern "C" fn log_wanted(level: c_int) -> c_int {
    c_int::from(guard::pure(false, || lines::wanted(level)))
}

/// # Safety
/// As for [`arg::text`].
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    // SAFETY: by the caller's promise.
    unsafe { arg::text(text) }.map_or(b"", |text| text.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::error_types::kv_error_t;
    use std::ffi::CStr;

    /// As C sees them.
    type Variadic = unsafe extern "C" fn(c_int, *const c_char, c_int, *const c_char, *const c_char, ...);

    #[test]
    fn arguments_of_every_class_arrive() {
        // SAFETY: the jump ends in a C function of this very type.
        let set_error = unsafe { std::mem::transmute::<unsafe extern "C" fn(), Variadic>(kv_set_error) };
        let (file, func, text) = (c"a.c", c"f", c"seven");
        // SAFETY: the format fits the arguments.
        unsafe {
            let format = c"%d %.2f %s %ld %d %d %d %.1f";
            set_error(27, file.as_ptr(), 9, func.as_ptr(), format.as_ptr(), 7, 3.25, text.as_ptr(), 1_i64 << 40, 1, 2, 3, 9.5);
        }
        // SAFETY: always valid in its own thread.
        let last: &kv_error_t = unsafe { &*error::kv_get_last_error() };
        // SAFETY: filled by the library, which ends all strings.
        let message = unsafe { CStr::from_ptr(last.message.as_ptr()) };
        assert_eq!(message, c"7 3.25 seven 1099511627776 1 2 3 9.5");
        assert_eq!((last.code, last.line), (27, 9));
    }

    #[test]
    fn null_strings_are_empty() {
        let null = std::ptr::null();
        // SAFETY: as above; NULL is allowed everywhere.
        unsafe { std::mem::transmute::<unsafe extern "C" fn(), Variadic>(kv_set_error)(3, null, 0, null, null) };
        // SAFETY: always valid in its own thread.
        let last: &kv_error_t = unsafe { &*error::kv_get_last_error() };
        assert_eq!((last.code, last.message[0], last.func[0], last.file[0]), (3, 0, 0, 0));
    }
}
