//! `--set KEY=VALUE`: one number of the policy's settings, by its name in their JSON.

use std::str::FromStr;

use serde_json::Value;

use crate::config::PolicyConfig;

/// One change. A number within an estimate is `KEY.low`, `KEY.mid` or `KEY.high`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    key: String,
    value: f64,
}

/// Why a change cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    #[error("`{0}` sets nothing; write KEY=NUMBER, as in gamma=0.9")]
    Form(String),
    #[error("`{0}` is no setting of the policy; there are {1}")]
    Key(String, String),
    #[error("{0} cannot be {1}: {2}")]
    Value(String, String, String),
}

impl FromStr for Setting {
    type Err = SetError;

    fn from_str(text: &str) -> Result<Self, SetError> {
        let form = || SetError::Form(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(form)?;
        let number = value.parse::<f64>().ok().filter(|value| value.is_finite());
        let setting = Self { key: key.to_owned(), value: number.ok_or_else(form)? };
        // Said before anything is read.
        setting.change(&mut PolicyConfig::default())?;
        Ok(setting)
    }
}

impl Setting {
    pub fn change(&self, policy: &mut PolicyConfig) -> Result<(), SetError> {
        let bad = |error: serde_json::Error| {
            SetError::Value(self.key.clone(), self.value.to_string(), error.to_string())
        };
        let mut json = serde_json::to_value(&*policy).map_err(bad)?;
        let found = json.pointer_mut(&format!("/{}", self.key.replace('.', "/")));
        match found.filter(|found| found.is_number()) {
            Some(found) => *found = number(self.value),
            None => return Err(SetError::Key(self.key.clone(), keys(&json).join(", "))),
        }
        *policy = serde_json::from_value(json).map_err(bad)?;
        Ok(())
    }
}

/// A whole number as such: some settings are.
fn number(value: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "used only where nothing is lost"
    )]
    let whole = value as u64;
    if whole as f64 == value { Value::from(whole) } else { Value::from(value) }
}

fn keys(json: &Value) -> Vec<String> {
    let Some(object) = json.as_object() else { return Vec::new() };
    let mut all = Vec::new();
    for (key, value) in object {
        if value.is_number() {
            all.push(key.clone());
        }
        all.extend(keys(value).into_iter().map(|below| format!("{key}.{below}")));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{SetError, Setting};
    use crate::config::PolicyConfig;

    #[test]
    fn numbers_are_set_by_their_names() {
        let mut policy = PolicyConfig::default();
        for text in ["gamma=0.5", "burst=4096", "price_per_page.mid=1e-5", "cool_down_seconds=7"] {
            text.parse::<Setting>().unwrap().change(&mut policy).unwrap();
        }
        let mut wanted = PolicyConfig { gamma: 0.5, burst: 4096, ..PolicyConfig::default() };
        (wanted.price_per_page.mid, wanted.cool_down_seconds) = (1e-5, 7.0);
        assert_eq!(policy, wanted);
    }

    #[test]
    fn what_is_no_setting_is_answered_with_those_that_are() {
        for bad in ["gama=1", "forecast=1", "price_per_page=1", "price_per_page.source=1", "=1"] {
            let error = bad.parse::<Setting>().unwrap_err();
            let SetError::Key(key, keys) = &error else { panic!("{error}") };
            assert_eq!(key, bad.strip_suffix("=1").unwrap());
            assert!(keys.contains("gamma") && keys.contains("price_per_page.mid"), "{keys}");
        }
    }

    #[test]
    fn what_is_no_number_or_does_not_fit_is_refused() {
        for bad in ["gamma", "gamma=", "gamma=fast", "gamma=nan", "gamma=inf"] {
            assert_eq!(bad.parse::<Setting>(), Err(SetError::Form(bad.to_owned())));
        }
        for bad in ["burst=0.5", "burst=-1"] {
            let error = bad.parse::<Setting>().unwrap_err();
            assert!(matches!(error, SetError::Value(..)), "{error}");
        }
    }
}
