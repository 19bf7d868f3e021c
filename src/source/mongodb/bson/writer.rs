//! Writes documents: commands, and the position of a scan.

/// Writes a document, element by element.
#[derive(Clone, Debug)]
pub(in super::super) struct Writer(Vec<u8>);

impl Writer {
    pub(in super::super) fn new() -> Self {
        Self(vec![0; 4])
    }

    /// The document.
    ///
    /// # Panics
    /// If it is longer than 2 GiB. What this client writes is small, or was read from a server, whose limit is 16 MiB.
    pub(in super::super) fn finish(mut self) -> Vec<u8> {
        self.0.push(0);
        let length = i32::try_from(self.0.len()).expect("documents of this client are small");
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }

    /// An element of any type, whose value has these bytes.
    pub(in super::super) fn raw(mut self, name: impl AsRef<[u8]>, (kind, value): (u8, &[u8])) -> Self {
        self.0.push(kind);
        // A name ends at its first zero byte.
        self.0.extend(name.as_ref().iter().filter(|byte| **byte != 0));
        self.0.push(0);
        self.0.extend_from_slice(value);
        self
    }

    pub(in super::super) fn text(self, name: &str, text: &str) -> Self {
        let length = i32::try_from(text.len() + 1).expect("texts of this client are small");
        let mut value = length.to_le_bytes().to_vec();
        value.extend_from_slice(text.as_bytes());
        value.push(0);
        self.raw(name, (0x02, &value))
    }

    pub(in super::super) fn int(self, name: &str, number: i32) -> Self {
        self.raw(name, (0x10, &number.to_le_bytes()))
    }

    pub(in super::super) fn long(self, name: &str, number: i64) -> Self {
        self.raw(name, (0x12, &number.to_le_bytes()))
    }

    pub(in super::super) fn double(self, name: &str, number: f64) -> Self {
        self.raw(name, (0x01, &number.to_le_bytes()))
    }

    pub(in super::super) fn boolean(self, name: &str, value: bool) -> Self {
        self.raw(name, (0x08, &[u8::from(value)]))
    }

    pub(in super::super) fn null(self, name: &str) -> Self {
        self.raw(name, (0x0A, &[]))
    }

    pub(in super::super) fn timestamp(self, name: &str, timestamp: u64) -> Self {
        self.raw(name, (0x11, &timestamp.to_le_bytes()))
    }

    /// Bytes without a meaning of their own.
    pub(in super::super) fn binary(self, name: &str, bytes: &[u8]) -> Self {
        self.binary_of(name, 0, bytes)
    }

    /// A UUID.
    pub(in super::super) fn uuid(self, name: &str, uuid: &[u8; 16]) -> Self {
        self.binary_of(name, 4, uuid)
    }

    fn binary_of(self, name: &str, subtype: u8, bytes: &[u8]) -> Self {
        let length = i32::try_from(bytes.len()).expect("bytes of this client are few");
        let mut value = length.to_le_bytes().to_vec();
        value.push(subtype);
        value.extend_from_slice(bytes);
        self.raw(name, (0x05, &value))
    }

    /// A document that is complete.
    pub(in super::super) fn document(self, name: &str, document: &[u8]) -> Self {
        self.raw(name, (0x03, document))
    }

    /// Documents that are complete.
    pub(in super::super) fn documents(self, name: &str, documents: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.array(name, documents, |array, name, document| array.document(name, &document))
    }

    pub(in super::super) fn texts<'t>(self, name: &str, texts: impl IntoIterator<Item = &'t str>) -> Self {
        self.array(name, texts, Self::text)
    }

    /// An array whose elements `write` appends.
    pub(in super::super) fn array<T>(
        self,
        name: &str,
        elements: impl IntoIterator<Item = T>,
        write: impl Fn(Self, &str, T) -> Self,
    ) -> Self {
        let numbered = elements.into_iter().enumerate();
        let array = numbered.fold(Self::new(), |array, (index, element)| write(array, &index.to_string(), element));
        self.raw(name, (0x04, &array.finish()))
    }

    /// Elements that were written before, without a document around them.
    pub(in super::super) fn elements(mut self, elements: &[u8]) -> Self {
        self.0.extend_from_slice(elements);
        self
    }
}
