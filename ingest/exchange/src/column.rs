//! One column of a file, whatever of several types its writer chose for it.
//!
//! cryo writes heights with 32 bits and binary values as binary, or as hexadecimal text with
//! `--hex`; others write 64 bits, or fixed sizes.

use std::borrow::Cow;

use alloy_primitives::hex;
use arrow_array::{
    Array, BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, Int32Array,
    Int64Array, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray, UInt32Array,
    UInt64Array, cast::AsArray,
};
use arrow_schema::DataType;

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueProblem {
    /// There is none.
    #[error("has no value")]
    Null,
    /// A number below zero.
    #[error("is negative")]
    Negative,
    /// A number that is too large.
    #[error("is {0}, which is too large")]
    TooLarge(u64),
    /// Text that is not hexadecimal.
    #[error("is not hexadecimal")]
    NotHex,
    /// Bytes of another length.
    #[error("has {0} bytes")]
    Length(usize),
}

/// A column of numbers.
pub(crate) enum Numbers {
    U32(UInt32Array),
    U64(UInt64Array),
    I32(Int32Array),
    I64(Int64Array),
}

impl Numbers {
    /// `None` when the column has another type.
    pub fn of(array: &dyn Array) -> Option<Numbers> {
        use arrow_array::types::{Int32Type, Int64Type, UInt32Type, UInt64Type};
        Some(match array.data_type() {
            DataType::UInt32 => Numbers::U32(array.as_primitive::<UInt32Type>().clone()),
            DataType::UInt64 => Numbers::U64(array.as_primitive::<UInt64Type>().clone()),
            DataType::Int32 => Numbers::I32(array.as_primitive::<Int32Type>().clone()),
            DataType::Int64 => Numbers::I64(array.as_primitive::<Int64Type>().clone()),
            _ => return None,
        })
    }

    pub fn get(&self, row: usize) -> Result<u64, ValueProblem> {
        let (null, value) = match self {
            Numbers::U32(array) => (array.is_null(row), Some(array.value(row).into())),
            Numbers::U64(array) => (array.is_null(row), Some(array.value(row))),
            Numbers::I32(array) => (array.is_null(row), array.value(row).try_into().ok()),
            Numbers::I64(array) => (array.is_null(row), array.value(row).try_into().ok()),
        };
        if null {
            return Err(ValueProblem::Null);
        }
        value.ok_or(ValueProblem::Negative)
    }

    pub fn get_u32(&self, row: usize) -> Result<u32, ValueProblem> {
        let value = self.get(row)?;
        u32::try_from(value).map_err(|_| ValueProblem::TooLarge(value))
    }
}

/// A column of bytes.
pub(crate) enum Binary {
    Bytes(BinaryArray),
    LargeBytes(LargeBinaryArray),
    BytesView(BinaryViewArray),
    Fixed(FixedSizeBinaryArray),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
}

impl Binary {
    /// `None` when the column has another type.
    pub fn of(array: &dyn Array) -> Option<Binary> {
        Some(match array.data_type() {
            DataType::Binary => Binary::Bytes(array.as_binary().clone()),
            DataType::LargeBinary => Binary::LargeBytes(array.as_binary().clone()),
            DataType::BinaryView => Binary::BytesView(array.as_binary_view().clone()),
            DataType::FixedSizeBinary(_) => Binary::Fixed(array.as_fixed_size_binary().clone()),
            DataType::Utf8 => Binary::Text(array.as_string().clone()),
            DataType::LargeUtf8 => Binary::LargeText(array.as_string().clone()),
            DataType::Utf8View => Binary::TextView(array.as_string_view().clone()),
            _ => return None,
        })
    }

    /// The value of a row; `None` where there is none.
    pub fn find(&self, row: usize) -> Result<Option<Cow<'_, [u8]>>, ValueProblem> {
        let array: &dyn Array = match self {
            Binary::Bytes(array) => array,
            Binary::LargeBytes(array) => array,
            Binary::BytesView(array) => array,
            Binary::Fixed(array) => array,
            Binary::Text(array) => array,
            Binary::LargeText(array) => array,
            Binary::TextView(array) => array,
        };
        if array.is_null(row) {
            return Ok(None);
        }
        let from_hex = |text: &str| match text.starts_with("0x") {
            true => hex::decode(text).map(Cow::Owned).map_err(|_| ValueProblem::NotHex),
            false => Err(ValueProblem::NotHex),
        };
        let bytes = match self {
            Binary::Bytes(array) => Cow::Borrowed(array.value(row)),
            Binary::LargeBytes(array) => Cow::Borrowed(array.value(row)),
            Binary::BytesView(array) => Cow::Borrowed(array.value(row)),
            Binary::Fixed(array) => Cow::Borrowed(array.value(row)),
            Binary::Text(array) => from_hex(array.value(row))?,
            Binary::LargeText(array) => from_hex(array.value(row))?,
            Binary::TextView(array) => from_hex(array.value(row))?,
        };
        Ok(Some(bytes))
    }

    pub fn get(&self, row: usize) -> Result<Cow<'_, [u8]>, ValueProblem> {
        self.find(row)?.ok_or(ValueProblem::Null)
    }

    /// A value of a fixed length, such as a hash; `None` where there is none.
    pub fn find_fixed<const N: usize>(&self, row: usize) -> Result<Option<[u8; N]>, ValueProblem> {
        let Some(bytes) = self.find(row)? else { return Ok(None) };
        match bytes.as_ref().try_into() {
            Ok(fixed) => Ok(Some(fixed)),
            Err(_) => Err(ValueProblem::Length(bytes.len())),
        }
    }

    pub fn get_fixed<const N: usize>(&self, row: usize) -> Result<[u8; N], ValueProblem> {
        self.find_fixed(row)?.ok_or(ValueProblem::Null)
    }
}

/// A column of yes and no.
pub(crate) fn flags(array: &dyn Array) -> Option<BooleanArray> {
    array.as_boolean_opt().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_any_width() {
        check_number(&UInt32Array::from(vec![7]), Ok(7));
        check_number(&UInt64Array::from(vec![u64::MAX]), Ok(u64::MAX));
        check_number(&Int32Array::from(vec![7]), Ok(7));
        check_number(&Int64Array::from(vec![-7]), Err(ValueProblem::Negative));
        check_number(&UInt32Array::from(vec![None]), Err(ValueProblem::Null));
        assert!(Numbers::of(&StringArray::from(vec!["7"])).is_none());
    }

    fn check_number(array: &dyn Array, expected: Result<u64, ValueProblem>) {
        assert_eq!(Numbers::of(array).unwrap().get(0), expected);
    }

    #[test]
    fn bytes_are_read_from_binary_and_from_hexadecimal() {
        let bytes = vec![Some([1, 2].as_slice())];
        check_binary(&BinaryArray::from(bytes.clone()), Ok([1, 2]));
        check_binary(&LargeBinaryArray::from(bytes.clone()), Ok([1, 2]));
        check_binary(&BinaryViewArray::from(bytes), Ok([1, 2]));
        check_binary(&StringArray::from(vec!["0x0102"]), Ok([1, 2]));
        check_binary(&LargeStringArray::from(vec!["0x0102"]), Ok([1, 2]));
        check_binary(&StringViewArray::from(vec!["0x0102"]), Ok([1, 2]));
        check_binary(&StringArray::from(vec!["0102"]), Err(ValueProblem::NotHex));
        check_binary(&StringArray::from(vec!["0x010"]), Err(ValueProblem::NotHex));
        check_binary(&StringArray::from(vec!["0x010203"]), Err(ValueProblem::Length(3)));
        check_binary(&BinaryArray::from_opt_vec(vec![None]), Err(ValueProblem::Null));
        assert!(Binary::of(&UInt32Array::from(vec![7])).is_none());
    }

    fn check_binary(array: &dyn Array, expected: Result<[u8; 2], ValueProblem>) {
        assert_eq!(Binary::of(array).unwrap().get_fixed(0), expected);
    }
}
