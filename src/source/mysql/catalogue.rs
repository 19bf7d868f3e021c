//! What the server's catalogue says.

use super::charset::{Charset, Charsets};
use super::error::Error;
use super::grants::Grants;
use super::hex::unhex;
use super::options::Options;
use super::quote::identifier;
use super::session::Session;
use super::tables;
use crate::feed::{Table, TableName};
use std::collections::HashMap;
use std::sync::Arc;

/// All tables that can be published and that our user may see, ordered by name.
///
/// # Errors
/// Also where the user may read nothing: all tables would seem to be missing.
pub(super) async fn tables(options: &Options, session: &mut Session) -> Result<Vec<Table>, Error> {
    let table = |table: tables::Table| Table {
        primary_key: table.primary_key(),
        columns: table.columns.into_iter().map(|column| column.name).collect(),
        schema: table.schema,
        name: table.name,
        // The log has whole rows (`binlog_row_image`).
        leaves_values_out: false,
    };
    let tables: Vec<Table> = tables::all(session).await?.into_iter().map(table).collect();
    if tables.is_empty() {
        let grants = Grants::read(session).await?;
        if !grants.has_anywhere("SELECT") {
            return Err(grants.lacking("read any table", "SELECT", &format!("{}.*", identifier(&options.database))));
        }
    }
    Ok(tables)
}

/// Schema and name of everything of this type that our user may see: `BASE TABLE`, `VIEW`.
pub(super) async fn names(session: &mut Session, table_type: &str) -> Result<Vec<TableName>, Error> {
    let sql = format!("SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = '{table_type}'");
    let rows = session.query(&sql).await?;
    Ok(rows.iter().map(|row| (row.text(0).into(), row.text(1).into())).collect())
}

impl Charsets {
    /// Reads the encodings of the server's collations.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn read(session: &mut Session) -> Result<Self, Error> {
        const MALFORMED: Error = Error::Protocol { what: "the list of character sets" };
        let rows = session.query("SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS").await?;
        let (mut charsets, mut singles) = (HashMap::new(), Vec::new());
        for row in rows {
            let name = row.text(0);
            let bytes_max = row.text(1).parse().map_err(|_| MALFORMED)?;
            if let Some(charset) = Charset::known(name, bytes_max) {
                charsets.insert(name.to_owned(), Arc::new(charset));
            } else if bytes_max == 1 && name != "binary" {
                singles.push(name.to_owned());
            }
        }
        // The server converts all bytes to characters itself. Names of character sets are letters and digits.
        let bytes = (0..=255_u8).fold(String::new(), |hex, byte| format!("{hex}{byte:02X}"));
        let converted: Vec<String> =
            singles.iter().map(|name| format!("HEX(CONVERT(CONVERT(UNHEX('{bytes}') USING {name}) USING utf32))")).collect();
        let rows = session.query(&format!("SELECT {}", converted.join(", "))).await?;
        let row = rows.first().ok_or(MALFORMED)?;
        for (index, name) in singles.into_iter().enumerate() {
            if let Some(charset) = unhex(row.text(index)).and_then(|utf32| Charset::single(&name, &utf32)) {
                charsets.insert(name, Arc::new(charset));
            }
        }
        let collations = if session.has_collation_numbers_by_charset() {
            "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
        } else {
            "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS"
        };
        let (mut known, mut others) = (Vec::new(), Vec::new());
        for row in session.query(collations).await? {
            // Some rows of MariaDB have no number.
            let Ok(number) = row.text(0).parse() else { continue };
            match charsets.get(row.text(1)) {
                Some(charset) => known.push((number, Arc::clone(charset))),
                None if row.text(1) == "binary" => {}
                None => others.push((number, row.text(1).into())),
            }
        }
        Ok(Self::new(known, others))
    }
}
