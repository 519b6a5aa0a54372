//! Statuses as gRPC's attribute `grpc.status` has them.

use tonic::Code;

/// How many there are, numbered from 0.
pub(super) const COUNT: usize = NAMES.len();

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(super) fn name(code: Code) -> &'static str {
    NAMES[code as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_name() {
        for (number, expected) in NAMES.into_iter().enumerate() {
            let code = Code::from_i32(i32::try_from(number).expect("few"));
            assert_eq!(name(code), expected);
            let letters = |text: &str| text.replace('_', "").to_ascii_lowercase();
            assert_eq!(letters(expected), letters(&format!("{code:?}")));
        }
    }
}
