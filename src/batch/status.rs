//! The states of a batch and the steps between them.

use std::ffi::CStr;

/// Where a batch is in its life. The numbers are those of the C enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Being filled.
    Pending = 0,
    /// Submitted; nobody has begun to execute it.
    Submitted = 1,
    /// Being executed, or its callbacks are running.
    Completing = 2,
    /// Ended, every operation completed.
    Completed = 3,
    /// Ended, at least one operation failed.
    Failed = 4,
    /// Ended by cancel, nothing was done.
    Cancelled = 5,
}

impl Status {
    /// Every status, by its number.
    pub const ALL: [Status; 6] =
        [Status::Pending, Status::Submitted, Status::Completing, Status::Completed, Status::Failed, Status::Cancelled];

    /// The status with this number.
    pub fn from_number(number: i32) -> Option<Status> {
        usize::try_from(number).ok().and_then(|i| Status::ALL.get(i).copied())
    }

    /// The name, as the C function gives it.
    pub const fn name(self) -> &'static CStr {
        match self {
            Status::Pending => c"PENDING",
            Status::Submitted => c"SUBMITTED",
            Status::Completing => c"COMPLETING",
            Status::Completed => c"COMPLETED",
            Status::Failed => c"FAILED",
            Status::Cancelled => c"CANCELLED",
        }
    }

    /// Whether nothing comes after it.
    pub const fn is_end(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }

    /// The one table of steps.
    pub const fn may_become(self, next: Status) -> bool {
        use Status::{Cancelled, Completed, Completing, Failed, Pending, Submitted};
        matches!((self, next), (Pending, Submitted | Cancelled) | (Submitted, Completing) | (Completing, Completed | Failed | Cancelled))
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn steps_lead_forward_only() {
        let mut steps = 0;
        for from in Status::ALL {
            for to in Status::ALL {
                if from.may_become(to) {
                    steps += 1;
                    assert!((to as u8) > (from as u8), "{from:?} to {to:?}");
                    assert!(!from.is_end());
                }
            }
        }
        assert_eq!(steps, 6);
        assert_eq!(Status::from_number(6), None);
        assert_eq!(Status::from_number(-1), None);
        assert_eq!(Status::from_number(2), Some(Status::Completing));
    }
}
