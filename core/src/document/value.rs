//! A YAML or JSON tree, before anything is known about it.

/// A tree of plain values. Whoever parses a file makes one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, or a YAML key with nothing behind it.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number of any size that a file can hold.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Keys and values in the file's order; a key that is there twice is kept twice, so that it can be reported.
    Map(Vec<(String, Self)>),
}

impl Value {
    /// What the value is, as a fault says it: `text "80"`, `a list`.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(value) => format!("text {value:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}
