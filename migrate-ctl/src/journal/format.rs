//! How facts look as bytes.
//!
//! A file is one line of text with the version, then one raw deflate stream of
//! records, flushed after each. A record is its length, the CRC-32 of its
//! payload, both as four bytes with the lowest first, and the payload, a fact
//! in the binary form of `postcard`.

use std::io;

use serde::Serialize;

use crate::journal::Fact;
use crate::model::Input;

/// Grows whenever a fact changes its form: there are no field names in it.
pub(crate) const VERSION: u32 = 3;
/// CRC-32 of the form of that version, as the test below has it.
#[cfg(test)]
const FORM: u32 = 0x64a6_5325;
/// What every version's first line begins with.
pub(crate) const MAGIC: &str = "migrate journal ";
/// Bytes before a payload.
const HEAD: usize = 8;
/// No fact is larger; a checkpoint of a hundred thousand processes is a quarter of it.
const LARGEST: usize = 1 << 29;

pub(crate) fn first_line() -> String {
    format!("{MAGIC}{VERSION}\n")
}

/// A fact as a record.
pub(crate) fn record(fact: &Fact<'_>) -> io::Result<Vec<u8>> {
    let mut record = postcard::to_extend(fact, vec![0; HEAD]).map_err(io::Error::other)?;
    let (head, payload) = record.split_at_mut(HEAD);
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= LARGEST);
    let length = length.ok_or_else(|| io::Error::other("the record is too large"))?;
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    Ok(record)
}

/// The first fact of these bytes and the length of its record; none while it is not whole.
pub(crate) fn fact(bytes: &[u8]) -> Result<Option<(Fact<'static>, usize)>, &'static str> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    // A usize has at least 32 bits wherever there is Linux.
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > LARGEST {
        return Err("a record is longer than any can be");
    }
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    if crc32fast::hash(payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err("a check sum is wrong");
    }
    match postcard::take_from_bytes(payload) {
        Ok((Fact::Input { input, .. }, [])) if !is_in_order(&input) => {
            Err("the processes of a tick are out of order")
        }
        Ok((fact, [])) => Ok(Some((fact, HEAD + length))),
        Ok(_) | Err(_) => Err("a record has another form"),
    }
}

fn is_in_order(input: &Input) -> bool {
    if let Input::Tick(tick) = input { tick.is_in_order() } else { true }
}

/// CRC-32 of a value in binary form.
pub(crate) fn digest(value: &(impl Serialize + ?Sized)) -> u32 {
    // Nothing of the model refuses to be written into memory.
    postcard::to_stdvec(value).map_or(0, |bytes| crc32fast::hash(&bytes))
}

#[cfg(test)]
mod tests {
    use serde_reflection::{Registry, Tracer, TracerConfig};

    use super::{FORM, VERSION};
    use crate::config::{Forecasting, Pattern};
    use crate::journal::Fact;
    use crate::model::{Class, End, Input, Mempolicy, Reason, Rule, Source, Verdict, Why};

    #[test]
    fn another_form_is_another_version() {
        let form = serde_json::to_string(&form()).unwrap();
        let found = crc32fast::hash(form.as_bytes());
        assert_eq!(
            found, FORM,
            "the types of a fact are not those of version {VERSION}: \
             raise VERSION and set FORM to {found:#010x}"
        );
    }

    /// The names, fields and variants of all types that a fact is made of, in their order. Types
    /// of the same name would be taken for one.
    fn form() -> Registry {
        let mut tracer = Tracer::new(TracerConfig::default());
        tracer.trace_simple_type::<Fact<'static>>().unwrap();
        // Of each enum within another type only its first variant was seen.
        tracer.trace_simple_type::<Class>().unwrap();
        tracer.trace_simple_type::<End>().unwrap();
        tracer.trace_simple_type::<Forecasting>().unwrap();
        tracer.trace_simple_type::<Input>().unwrap();
        tracer.trace_simple_type::<Mempolicy>().unwrap();
        tracer.trace_simple_type::<Pattern>().unwrap();
        tracer.trace_simple_type::<Reason>().unwrap();
        tracer.trace_simple_type::<Rule>().unwrap();
        tracer.trace_simple_type::<Source>().unwrap();
        tracer.trace_simple_type::<Verdict>().unwrap();
        tracer.trace_simple_type::<Why>().unwrap();
        // Fails where one was forgotten, and names it.
        tracer.registry().unwrap()
    }
}
