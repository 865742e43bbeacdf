//! The one table of error codes: number, name, text. The C header, the names and the descriptions all come from here.
//!
//! The numbers are frozen: programs compiled against the original header compare with them.

use std::ffi::{CStr, c_int};

/// A public error number, one of the constants below.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub c_int);

macro_rules! codes {
    ($( $number:literal $name:ident $text:literal; )*) => {
        impl Code {
            $( #[doc = $text] pub const $name: Code = Code($number); )*

            /// Every code there is, in rising order.
            pub const ALL: &'static [Code] = &[$( Code($number) ),*];

            /// The macro's name (`"KV_ERR_NONE"` for 0), as a C string; unknown numbers give `"UNKNOWN_ERROR"`.
            pub const fn c_name(self) -> &'static CStr {
                match self.0 {
                    $( $number => match CStr::from_bytes_with_nul(concat!("KV_ERR_", stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => c"UNKNOWN_ERROR",
                    }, )*
                    _ => c"UNKNOWN_ERROR",
                }
            }

            /// One sentence for people; unknown numbers give `"Unknown error"`.
            pub const fn c_description(self) -> &'static CStr {
                match self.0 {
                    $( $number => match CStr::from_bytes_with_nul(concat!($text, "\0").as_bytes()) {
                        Ok(text) => text,
                        Err(_) => c"Unknown error",
                    }, )*
                    _ => c"Unknown error",
                }
            }
        }
    };
}

codes! {
    0 NONE "Success";
    1 SYS "A system call was refused";
    2 MEM "Out of memory";
    3 PARAM "Bad parameter";
    4 FILE "A file or directory cannot be used";
    5 NET "Network failure";
    6 NOT_FOUND "Not found";
    7 EXIST "Exists already";
    8 TIMEOUT "Timed out";
    9 LOCK "Locked by another process";
    10 BUSY "Too much in flight; try again later";
    11 NOT_SUPPORTED "Not supported";
    12 CORRUPTED "Stored data is damaged";
    13 DISK_FULL "The disk is full";
    14 TXN_CONFLICT "Transaction conflict";
    15 TXN_ABORT "Transaction aborted";
    16 CLUSTER_SYNC "Cluster synchronisation failed";
    17 NETWORK_PARTITION "Network partition";
    18 LEADER_CHANGED "The leader has changed";
    19 INVALID_PARAM "Invalid parameter";
    20 OUT_OF_MEMORY "Out of memory";
    21 IO_ERROR "Input or output failed";
    22 NO_SPACE "No space left";
    23 THREAD_ERROR "Thread failure";
    24 INVALID_STATE "Not possible in this state";
    25 NOT_IMPLEMENTED "Not implemented";
    26 COMPACTION_FAILED "Compaction failed";
    27 BATCH_FULL "The batch is full";
    28 BATCH_TOO_LARGE "The batch holds too many bytes";
    29 KEY_NOT_FOUND "Key not found";
    30 KEY_EXISTS "Key exists already";
    31 KEY_TOO_LONG "The key is too long";
    32 MEMORY_ALLOC "Memory allocation failed";
    33 LOCK_FAILED "A lock could not be taken";
    34 IO "Input or output failed";
    35 OVERFLOW "Overflow";
    36 UNDERFLOW "Underflow";
    37 ALIGNMENT "Bad alignment";
    38 DEVICE "Device failure";
    39 ASYNC_FAILED "An asynchronous operation failed";
    40 BATCH_FAILED "At least one operation of the batch failed";
    41 MMAP_FAILED "Memory mapping failed";
    42 STATE "Wrong state";
    43 CONFIG "Bad configuration";
    44 NULL_POINTER "A pointer is NULL that must not be";
    45 THREAD_CREATE "A thread could not be created";
    46 CANCELLED "Cancelled";
    100 UNKNOWN "Unknown failure";
}

impl Code {
    /// The macro's name, as a Rust string.
    pub fn name(self) -> &'static str {
        self.c_name().to_str().unwrap_or("UNKNOWN_ERROR")
    }

    /// The description, as a Rust string.
    pub fn description(self) -> &'static str {
        self.c_description().to_str().unwrap_or("Unknown error")
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn names_and_numbers() {
        assert_eq!(Code::NONE.name(), "KV_ERR_NONE");
        assert_eq!(Code::BATCH_FULL.0, 27);
        assert_eq!(Code(999).name(), "UNKNOWN_ERROR");
        assert_eq!(Code(999).description(), "Unknown error");
        assert_eq!(Code::ALL.len(), 48);
        assert!(Code::ALL.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
