//! How facts look as bytes.
//!
//! A file is one line of text with the version, then one raw deflate stream of
//! records, flushed after each. A record is its length, the CRC-32 of its
//! payload, both as four bytes with the lowest first, and the payload, a fact
//! in the binary form of `postcard`.

use std::io;

use serde::Serialize;

use crate::journal::Fact;

/// Grows whenever a fact changes its form: there are no field names in it.
pub(crate) const VERSION: u32 = 2;
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
        Ok((fact, [])) => Ok(Some((fact, HEAD + length))),
        Ok(_) | Err(_) => Err("a record has another form"),
    }
}

/// CRC-32 of a value in binary form.
pub(crate) fn digest(value: &(impl Serialize + ?Sized)) -> u32 {
    // Nothing of the model refuses to be written into memory.
    postcard::to_stdvec(value).map_or(0, |bytes| crc32fast::hash(&bytes))
}
