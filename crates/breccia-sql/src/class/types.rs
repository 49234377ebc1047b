//! The name the database's catalogue has for a type as the parser read it.
//!
//! Not a judgement: the catalogue says whether a cast to that name is safe. Invariant: a type this
//! file does not know by name is not proven.

use sqlparser::ast::{
    ArrayElemTypeDef, DataType, ExactNumberInfo, GeometricTypeKind, ObjectName, ObjectNamePart,
    TimezoneInfo,
};

/// The last part of a dotted name, as the catalogue writes it.
pub(super) fn last_part(name: &ObjectName) -> Option<&str> {
    match name.0.last()? {
        ObjectNamePart::Identifier(ident) => match ident.quote_style {
            None | Some('"') => Some(ident.value.as_str()),
            Some(_) => None,
        },
        ObjectNamePart::Function(_) => None,
    }
}

fn zoned(zone: TimezoneInfo, plain: &'static str, with: &'static str) -> &'static str {
    match zone {
        TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => plain,
        TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => with,
    }
}

fn geometric(kind: GeometricTypeKind) -> &'static str {
    match kind {
        GeometricTypeKind::Point => "point",
        GeometricTypeKind::Line => "line",
        GeometricTypeKind::LineSegment => "lseg",
        GeometricTypeKind::GeometricBox => "box",
        GeometricTypeKind::GeometricPath => "path",
        GeometricTypeKind::Polygon => "polygon",
        GeometricTypeKind::Circle => "circle",
    }
}

/// The name of a type in `pg_type`; of an array, that of its element.
pub(super) fn name(data_type: &DataType) -> Option<&str> {
    Some(match data_type {
        DataType::Character(_) | DataType::Char(_) => "bpchar",
        DataType::CharacterVarying(_) | DataType::CharVarying(_) | DataType::Varchar(_) => {
            "varchar"
        }
        DataType::Uuid => "uuid",
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric",
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::Real | DataType::Float4 => "float4",
        // With a precision it may be either of two types; the masked text does not tell which.
        DataType::Float(ExactNumberInfo::None) | DataType::DoublePrecision | DataType::Float8 => {
            "float8"
        }
        DataType::Bool | DataType::Boolean => "bool",
        DataType::Date => "date",
        DataType::Time(_, zone) => zoned(*zone, "time", "timetz"),
        DataType::Timestamp(_, zone) => zoned(*zone, "timestamp", "timestamptz"),
        DataType::Interval { .. } => "interval",
        DataType::JSON => "json",
        DataType::JSONB => "jsonb",
        DataType::Regclass => "regclass",
        DataType::Text => "text",
        DataType::Bytea => "bytea",
        DataType::Bit(_) => "bit",
        DataType::BitVarying(_) | DataType::VarBit(_) => "varbit",
        DataType::GeometricType(kind) => geometric(*kind),
        DataType::TsVector => "tsvector",
        DataType::TsQuery => "tsquery",
        DataType::Custom(custom, _) => last_part(custom)?,
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => name(element)?,
        _ => return None,
    })
}
