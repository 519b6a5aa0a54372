//! A place in a JSON document, which knows its own path.

use std::{fmt, time::Duration};

use serde_json::Value;
use tonic::Code;

/// A value, and the path to it that errors name: `$.methodConfig[0].timeout`.
///
/// Read as protobuf's JSON mapping has it, and gRPC's service configs with it: what is `null` is not
/// there, unknown keys are nobody's fault, and numbers may be written as strings.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Place<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, path: "$".to_owned() }
    }

    /// What is wrong here.
    pub(super) fn fault(&self, what: impl fmt::Display) -> String {
        format!("{}: {what}", self.path)
    }

    fn not_a(&self, what: &str) -> String {
        // Short: a whole document may be in the wrong place.
        let value = self.value.to_string();
        let shown: String = value.chars().take(40).collect();
        let dots = if shown.len() < value.len() { ".." } else { "" };
        self.fault(format_args!("{shown}{dots} is no {what}"))
    }

    /// What an object has under this key.
    pub(super) fn get(&self, key: &str) -> Result<Option<Self>, String> {
        let object = self.value.as_object().ok_or_else(|| self.not_a("object"))?;
        let value = object.get(key).filter(|value| !value.is_null());
        Ok(value.map(|value| Self { value, path: format!("{}.{key}", self.path) }))
    }

    pub(super) fn required(&self, key: &str) -> Result<Self, String> {
        self.get(key)?.ok_or_else(|| self.fault(format_args!("`{key}` is missing")))
    }

    /// Reads what is under this key, if anything is.
    pub(super) fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Self) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.get(key)?.map(|place| read(&place)).transpose()
    }

    /// The elements of the list under this key; none if it is not there.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Self>, String> {
        self.read(key, Self::elements).map(Option::unwrap_or_default)
    }

    fn elements(&self) -> Result<Vec<Self>, String> {
        let list = self.value.as_array().ok_or_else(|| self.not_a("list"))?;
        let element = |(at, value)| Self { value, path: format!("{}[{at}]", self.path) };
        Ok(list.iter().enumerate().map(element).collect())
    }

    /// The one key of an object and what is under it.
    pub(super) fn only_key(&self) -> Result<(&'a str, Self), String> {
        let object = self.value.as_object().ok_or_else(|| self.not_a("object"))?;
        let mut keys = object.iter();
        match (keys.next(), keys.next()) {
            (Some((key, value)), None) => {
                Ok((key, Self { value, path: format!("{}.{key}", self.path) }))
            }
            _ => Err(self.fault(format_args!("has {} keys; write one, a policy's", object.len()))),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, String> {
        self.value.as_str().ok_or_else(|| self.not_a("string"))
    }

    pub(super) fn flag(&self) -> Result<bool, String> {
        self.value.as_bool().ok_or_else(|| self.not_a("true or false"))
    }

    pub(super) fn number(&self) -> Result<f64, String> {
        let number = match self.value {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| self.not_a("number"))
    }

    /// A whole number from nothing to 4 294 967 295.
    pub(super) fn count(&self) -> Result<u32, String> {
        let number = self.number()?;
        let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        if fits { Ok(number as u32) } else { Err(self.not_a("whole number of 32 bits")) }
    }

    /// At most a hundred.
    pub(super) fn percent(&self) -> Result<u32, String> {
        match self.count()? {
            percent @ 0..=100 => Ok(percent),
            percent => Err(self.fault(format_args!("{percent} is over 100 percent"))),
        }
    }

    pub(super) fn duration(&self) -> Result<Duration, String> {
        duration(self.text()?)
            .ok_or_else(|| self.not_a("duration; write seconds with an s behind, such as \"1.5s\""))
    }

    pub(super) fn positive_duration(&self) -> Result<Duration, String> {
        match self.duration()? {
            Duration::ZERO => Err(self.fault("is zero; write a longer time")),
            duration => Ok(duration),
        }
    }

    /// Status codes, by name in whichever case or by number (gRFC A6).
    pub(super) fn codes(&self) -> Result<Vec<Code>, String> {
        let code = |place: Self| {
            let code = match place.value {
                Value::String(name) => (0..=16)
                    .map(Code::from_i32)
                    .find(|code| name_of(*code).eq_ignore_ascii_case(name)),
                _ => place.count().ok().filter(|code| *code <= 16).map(|it| Code::from(it as i32)),
            };
            match code {
                Some(Code::Ok) => Err(place.fault("OK is no failure; leave it out")),
                Some(code) => Ok(code),
                None => Err(place.not_a("status code; write one such as \"UNAVAILABLE\"")),
            }
        };
        self.elements()?.into_iter().map(code).collect()
    }
}

/// As the protocol's document names them.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// `google.protobuf.Duration` in JSON, not negative; gRFC A6 leaves the zero before the point out.
fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let seconds = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    (seconds <= MOST_SECONDS).then(|| Duration::new(seconds, nanos))
}

/// Ten thousand years: protobuf's own limit.
const MOST_SECONDS: u64 = 315_576_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_protobuf_and_grfc_a6_write_them() {
        for (text, millis) in [
            (".1s", Some(100)),
            ("1s", Some(1_000)),
            ("1.5s", Some(1_500)),
            ("0.000001s", Some(0)),
            ("0s", Some(0)),
            ("1.s", Some(1_000)),
            ("3600.000000000s", Some(3_600_000)),
            ("1.0000000001s", None),
            ("s", None),
            (".s", None),
            ("-1s", None),
            ("1", None),
            ("1m", None),
            ("1 s", None),
            ("1e3s", None),
            ("99999999999999999999s", None),
            ("315576000001s", None),
        ] {
            let read = duration(text).map(|duration| duration.as_millis());
            assert_eq!(read, millis, "{text}");
        }
    }
}
