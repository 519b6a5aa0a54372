//! What was given, and which of it is in force.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    time::Duration,
};

use super::{Pairs, Setting, Source, Value, value::pairs};
use crate::{Error, duration};

/// The environment's and the command line's values, as written.
///
/// A variable that is empty is not set; a flag that is empty is refused.
#[derive(Clone, Default)]
pub(crate) struct Given {
    environment: BTreeMap<Setting, OsString>,
    flags: BTreeMap<Setting, String>,
}

impl Given {
    /// The process's environment, as it is now, and no flags.
    ///
    /// In this crate's own tests the environment is empty: what they say must not depend on the
    /// shell that they are started from.
    pub(crate) fn by_process() -> Self {
        Self::by_environment(|name| if cfg!(test) { None } else { env::var_os(name) })
    }

    pub(crate) fn by_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |setting: Setting| {
            let value = variable(setting.entry().variable).filter(|value| !value.is_empty())?;
            Some((setting, value))
        };
        Self {
            environment: Setting::ALL.into_iter().filter_map(set).collect(),
            flags: BTreeMap::new(),
        }
    }

    pub(crate) fn without_environment(&mut self) {
        self.environment.clear();
    }

    #[cfg(any(test, feature = "args"))]
    pub(crate) fn set_flags(&mut self, flags: BTreeMap<Setting, String>) {
        self.flags = flags;
    }

    /// The flag's value, or else the variable's.
    pub(super) fn text(&self, setting: Setting) -> Result<Option<Value<&str>>, Error> {
        match self.flag(setting) {
            Some(flag) => Ok(Some(flag)),
            None => self.variable(setting),
        }
    }

    fn flag(&self, setting: Setting) -> Option<Value<&str>> {
        let value = self.flags.get(&setting)?;
        Some(Value { value, source: Source::Flag(setting) })
    }

    pub(super) fn variable(&self, setting: Setting) -> Result<Option<Value<&str>>, Error> {
        let Some(value) = self.environment.get(&setting).map(OsString::as_os_str) else {
            return Ok(None);
        };
        let source = Source::Variable(setting);
        let not_text = || {
            let form = setting.entry().form;
            Error::config(match setting {
                // There may be a password in it.
                Setting::Registry | Setting::RegistryAddress => {
                    format!("{source} is not UTF-8: write {form}")
                }
                _ => format!("{source} is {value:?}, which is not UTF-8: write {form}"),
            })
        };
        let value = OsStr::to_str(value).ok_or_else(not_text)?;
        Ok(Some(Value { value, source }))
    }

    /// The value in force: the flag's, else the variable's, else the code's, if any of these says
    /// something.
    fn resolve<T>(
        &self,
        setting: Setting,
        code: Option<T>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<Value<T>>, Error> {
        let Some(Value { value: text, source }) = self.text(setting)? else {
            return Ok(code.map(|value| Value { value, source: Source::Code(setting) }));
        };
        match parse(text) {
            Some(value) => Ok(Some(Value { value, source })),
            None => Err(source.refuse(setting, text)),
        }
    }

    pub(crate) fn string(
        &self,
        setting: Setting,
        code: Option<String>,
    ) -> Result<Option<Value<String>>, Error> {
        // Only a flag can be empty, as in `--registry "$UNSET"`: it must not set aside what the
        // environment and the code say.
        self.resolve(setting, code, |text| (!text.is_empty()).then(|| text.to_owned()))
    }

    pub(crate) fn duration(
        &self,
        setting: Setting,
        code: Option<Duration>,
    ) -> Result<Option<Value<Duration>>, Error> {
        // In code 0 may be meant, as a timeout of all calls in a test. Written, it is a slip.
        self.resolve(setting, code, |text| duration::parse(text).filter(|it| !it.is_zero()))
    }

    pub(crate) fn number(
        &self,
        setting: Setting,
        code: Option<u32>,
    ) -> Result<Option<Value<u32>>, Error> {
        self.resolve(setting, code, |text| text.parse().ok())
    }

    /// All pairs: the variable's laid over the code's, the flag's over both.
    pub(crate) fn pairs(
        &self,
        setting: Setting,
        code: BTreeMap<String, String>,
    ) -> Result<Pairs, Error> {
        let sources = if code.is_empty() { vec![] } else { vec![Source::Code(setting)] };
        let mut all = Pairs { pairs: code, sources };
        let given = [self.variable(setting)?, self.flag(setting)];
        for Value { value: text, source } in given.into_iter().flatten() {
            all.pairs.extend(pairs(text).ok_or_else(|| source.refuse(setting, text))?);
            all.sources.push(source);
        }
        Ok(all)
    }
}
