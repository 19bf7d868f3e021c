//! The collections of the database.

use super::action::Action;
use super::bson::{Document, Writer};
use super::document::KEY;
use super::error::Error;
use super::options::{Image, Options};
use super::session::Session;
use crate::feed::{Catalogue, Table};
use std::sync::Arc;

/// A collection, as `listCollections` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Collection {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Whether it stores the images of changed documents (`changeStreamPreAndPostImages`).
    pub(super) stores_images: bool,
}

/// What a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ordinary,
    /// Old documents vanish when it is full, and the log does not say so.
    Capped,
    View,
    TimeSeries,
}

impl Kind {
    /// Why it cannot be followed, and what to do about it.
    pub(super) const fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Ordinary => None,
            Self::Capped => {
                Some("it is capped, and the oplog does not tell which documents fall out of it; use a collection with a TTL index")
            }
            Self::View => Some("it is a view, and has no change stream; name the collections that it reads"),
            Self::TimeSeries => Some("it is a time series, and has no change stream; use an ordinary collection"),
        }
    }
}

impl Collection {
    fn read(described: Document<'_>) -> Result<Option<Self>, Error> {
        let Some(name) = described.text("name")?.filter(|name| !name.starts_with("system.")) else { return Ok(None) };
        let options = described.document("options")?.unwrap_or(Document::EMPTY);
        let kind = match described.text("type")? {
            Some("view") => Kind::View,
            Some("timeseries") => Kind::TimeSeries,
            _ if options.is_true("capped")? => Kind::Capped,
            _ => Kind::Ordinary,
        };
        let images = options.document("changeStreamPreAndPostImages")?;
        let stores_images = images.map(|images| images.is_true("enabled")).transpose()?.unwrap_or(false);
        Ok(Some(Self { name: name.to_owned(), kind, stores_images }))
    }
}

/// All collections of the database, without those of the server.
pub(super) async fn collections(session: &mut Session) -> Result<Vec<Collection>, Error> {
    let command = Writer::new().int("listCollections", 1).document("cursor", Document::EMPTY.bytes());
    let described = session.documents(Action::List, command).await?;
    let read =
        described.iter().filter_map(|described| Document::new(described).map_err(Error::from).and_then(Collection::read).transpose());
    read.collect()
}

/// The catalogue that these collections are.
pub(super) fn catalogue(options: &Options, collections: &[Collection]) -> Catalogue {
    let database: Arc<str> = options.database.as_str().into();
    let key: Vec<Arc<str>> = vec![KEY.into()];
    let (mut tables, mut views) = (Vec::new(), Vec::new());
    for Collection { name, kind, stores_images } in collections {
        let name: Arc<str> = name.as_str().into();
        match kind {
            Kind::View | Kind::TimeSeries => views.push((Arc::clone(&database), name)),
            Kind::Ordinary | Kind::Capped => tables.push(Table {
                schema: Arc::clone(&database),
                name,
                primary_key: key.clone(),
                columns: key.clone(),
                leaves_values_out: options.full_document == Image::Off || !stores_images,
            }),
        }
    }
    Catalogue { database, tables, views }
}

#[cfg(test)]
mod tests {
    use super::super::bson::{Document, Writer};
    use super::{Collection, Kind};

    fn read(name: &str, kind: &str, options: Writer) -> Option<Collection> {
        let described = Writer::new().text("name", name).text("type", kind).document("options", &options.finish()).finish();
        Collection::read(Document::new(&described).unwrap()).unwrap()
    }

    #[test]
    fn what_cannot_be_followed_is_told_apart() {
        let kind = |kind, options| read("orders", kind, options).unwrap().kind;
        assert_eq!(kind("collection", Writer::new()), Kind::Ordinary);
        assert_eq!(kind("collection", Writer::new().boolean("capped", true)), Kind::Capped);
        assert_eq!(kind("view", Writer::new()), Kind::View);
        assert_eq!(kind("timeseries", Writer::new()), Kind::TimeSeries);
        assert_eq!(read("system.views", "collection", Writer::new()), None);
        let images = Writer::new().boolean("enabled", true).finish();
        assert!(read("orders", "collection", Writer::new().document("changeStreamPreAndPostImages", &images)).unwrap().stores_images);
    }
}
