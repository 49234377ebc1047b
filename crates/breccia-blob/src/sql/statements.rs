//! All SQL text but the tables' definitions, in one place.
//!
//! Not who runs it. `?` stands for a parameter, `{p}` for the table prefix, and the other words in
//! braces for what the dialects write differently. Invariant: no value ever becomes part of a text.

/// How SQL is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// PostgreSQL.
    Postgresql,
    /// MySQL and MariaDB.
    Mysql,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    /// Makes a template into this dialect's text.
    pub(crate) fn render(self, template: &str, prefix: &str) -> String {
        let text = template
            .replace("{p}", prefix)
            .replace("{lock}", self.lock())
            .replace("{or-nothing}", self.or_nothing())
            .replace("{now}", self.now());
        if self != Self::Postgresql {
            return text;
        }
        let mut numbered = String::with_capacity(text.len());
        for (index, piece) in text.split('?').enumerate() {
            if index > 0 {
                numbered.push('$');
                numbered.push_str(&index.to_string());
            }
            numbered.push_str(piece);
        }
        numbered
    }

    /// Locks the rows of a SELECT. SQLite's transactions hold the whole file.
    fn lock(self) -> &'static str {
        match self {
            Self::Postgresql | Self::Mysql => "FOR UPDATE",
            Self::Sqlite => "",
        }
    }

    /// Makes an INSERT change nothing if its key is there. MySQL's way locks the row that is there
    /// exclusively, unlike INSERT IGNORE, and hides no other error.
    fn or_nothing(self) -> &'static str {
        match self {
            Self::Postgresql | Self::Sqlite => "ON CONFLICT DO NOTHING",
            Self::Mysql => "ON DUPLICATE KEY UPDATE name = name",
        }
    }

    /// The database's own time in milliseconds: gateways' clocks may differ.
    fn now(self) -> &'static str {
        match self {
            Self::Postgresql => {
                "CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint)"
            }
            Self::Mysql => "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        }
    }
}

/// Declares the statements with their templates.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $template:expr;)*) => {
        /// The statements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Query {
            $($(#[$doc])* $name,)*
        }

        impl Query {
            /// Every statement, in the order of their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            fn template(self) -> &'static str {
                match self {
                    $(Self::$name => $template,)*
                }
            }
        }
    };
}

statements! {
    /// A sign of life.
    Probe: "SELECT 1";
    /// The schema's version.
    SchemaVersion: "SELECT value FROM {p}meta WHERE name = ?";
    /// Writes the schema's version.
    SetSchemaVersion: "INSERT INTO {p}meta (name, value) VALUES (?, ?) {or-nothing}";
    /// All of an object's row.
    FindObject: "SELECT generation, size, modified, etag, record, tags \
        FROM {p}objects WHERE name = ?";
    /// The same, with the first chunk.
    FindObjectAndChunk: "SELECT o.generation, o.size, o.modified, o.etag, o.record, o.tags, \
        c.crc, c.data FROM {p}objects o LEFT JOIN {p}chunks c \
        ON c.generation = o.generation AND c.sequence = 0 WHERE o.name = ?";
    /// What a write needs to know of what is there, locked.
    LockObject: "SELECT generation, etag, record FROM {p}objects WHERE name = ? {lock}";
    /// A new object, if there is none.
    InsertObject: "INSERT INTO {p}objects (name, generation, size, modified, etag, record, tags) \
        VALUES (?, ?, ?, ?, ?, ?, ?) {or-nothing}";
    /// An object in place of the one that is there.
    UpdateObject: "UPDATE {p}objects SET generation = ?, size = ?, modified = ?, etag = ?, \
        record = ?, tags = ? WHERE name = ?";
    /// Other tags.
    UpdateTags: "UPDATE {p}objects SET tags = ? WHERE name = ?";
    /// Removes an object's row.
    DeleteObject: "DELETE FROM {p}objects WHERE name = ?";
    /// A page of objects.
    ListObjects: "SELECT name, size, modified, etag FROM {p}objects \
        WHERE name >= ? AND name < ? ORDER BY name LIMIT ?";
    /// A chunk.
    InsertChunk: "INSERT INTO {p}chunks (generation, sequence, crc, data) VALUES (?, ?, ?, ?)";
    /// Reads a chunk.
    FindChunk: "SELECT crc, data FROM {p}chunks WHERE generation = ? AND sequence = ?";
    /// The first chunk that is left of a generation.
    FirstChunk: "SELECT min(sequence) FROM {p}chunks WHERE generation = ?";
    /// Removes some chunks.
    DeleteChunks: "DELETE FROM {p}chunks WHERE generation = ? AND sequence >= ? AND sequence < ?";
    /// Says that a generation is being written.
    InsertPending: "INSERT INTO {p}pending (generation, seen, beats) VALUES (?, {now}, 0)";
    /// Says that it still is. `beats` makes it a change whatever the clock says.
    BeatPending: "UPDATE {p}pending SET seen = {now}, beats = beats + 1 WHERE generation = ?";
    /// The writing has ended.
    DeletePending: "DELETE FROM {p}pending WHERE generation = ?";
    /// Writings without a sign of life.
    ListPending: "SELECT generation FROM {p}pending WHERE seen <= {now} - ? \
        ORDER BY seen LIMIT ?";
    /// Gives up one of them, unless it has shown life since.
    ExpirePending: "DELETE FROM {p}pending WHERE generation = ? AND seen <= {now} - ?";
    /// Generations to delete after the grace.
    InsertGarbage: "INSERT INTO {p}garbage (id, since, generations) VALUES (?, {now}, ?)";
    /// Generations that nobody has ever seen: to delete at once.
    InsertUnseenGarbage: "INSERT INTO {p}garbage (id, since, generations) VALUES (?, 0, ?)";
    /// Garbage whose grace has passed.
    ListGarbage: "SELECT id, generations FROM {p}garbage WHERE since <= {now} - ? \
        ORDER BY since LIMIT ?";
    /// Garbage that was cleared away.
    DeleteGarbage: "DELETE FROM {p}garbage WHERE id = ?";
    /// Begins an upload.
    InsertUpload: "INSERT INTO {p}uploads (name, id, begun, record) VALUES (?, ?, ?, ?)";
    /// An upload.
    FindUpload: "SELECT record FROM {p}uploads WHERE name = ? AND id = ?";
    /// An upload, locked.
    LockUpload: "SELECT record FROM {p}uploads WHERE name = ? AND id = ? {lock}";
    /// Ends an upload.
    DeleteUpload: "DELETE FROM {p}uploads WHERE name = ? AND id = ?";
    /// Uploads of one key.
    ListUploadsOfKey: "SELECT name, id, begun FROM {p}uploads \
        WHERE name = ? AND id > ? ORDER BY id LIMIT ?";
    /// Uploads of keys in a range.
    ListUploads: "SELECT name, id, begun FROM {p}uploads \
        WHERE name >= ? AND name < ? ORDER BY name, id LIMIT ?";
    /// Uploads that have expired.
    ListExpiredUploads: "SELECT name, id FROM {p}uploads WHERE begun < ? ORDER BY begun LIMIT ?";
    /// A part.
    FindPart: "SELECT generation FROM {p}parts WHERE upload = ? AND number = ?";
    /// Writes a part.
    InsertPart: "INSERT INTO {p}parts \
        (upload, number, generation, size, modified, etag, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)";
    /// Removes a part.
    DeletePart: "DELETE FROM {p}parts WHERE upload = ? AND number = ?";
    /// A page of parts.
    ListParts: "SELECT number, generation, size, modified, etag, checksum FROM {p}parts \
        WHERE upload = ? AND number > ? ORDER BY number LIMIT ?";
    /// Removes all parts of an upload.
    DeleteParts: "DELETE FROM {p}parts WHERE upload = ?";
    /// A reserved object.
    FindReserved: "SELECT data FROM {p}reserved WHERE name = ?";
    /// A reserved object, if there is none.
    InsertReserved: "INSERT INTO {p}reserved (name, data) VALUES (?, ?) {or-nothing}";
    /// Another content of a reserved object.
    UpdateReserved: "UPDATE {p}reserved SET data = ? WHERE name = ?";
    /// Removes a reserved object.
    DeleteReserved: "DELETE FROM {p}reserved WHERE name = ?";
    /// Names of reserved objects.
    ListReserved: "SELECT name FROM {p}reserved WHERE name >= ? AND name < ? ORDER BY name LIMIT ?";
}

impl Query {
    /// Whether it answers with rows.
    pub(crate) fn gives_rows(self) -> bool {
        self.template().starts_with("SELECT")
    }

    /// Its place in [`Query::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// The statements in one dialect.
#[derive(Debug)]
pub(crate) struct Statements(Vec<String>);

impl Statements {
    /// The statements over tables with this prefix.
    pub(crate) fn new(dialect: Dialect, prefix: &str) -> Self {
        let render = |query: &Query| dialect.render(query.template(), prefix);
        Self(Query::ALL.iter().map(render).collect())
    }

    /// The text of one.
    pub(crate) fn text(&self, query: Query) -> &str {
        self.0.get(query.index()).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_is_found_at_its_number() {
        for (index, query) in Query::ALL.iter().enumerate() {
            assert_eq!(query.index(), index);
        }
    }

    #[test]
    fn parameters_are_numbered_for_postgresql_only() {
        let check = |dialect, expected: &str| {
            let statements = Statements::new(dialect, "x_");
            assert_eq!(statements.text(Query::FindChunk), expected);
        };
        let text = "SELECT crc, data FROM x_chunks WHERE generation = ? AND sequence = ?";
        check(Dialect::Mysql, text);
        check(Dialect::Sqlite, text);
        let text = "SELECT crc, data FROM x_chunks WHERE generation = $1 AND sequence = $2";
        check(Dialect::Postgresql, text);
    }

    #[test]
    fn no_statement_keeps_a_brace() {
        for dialect in [Dialect::Postgresql, Dialect::Mysql, Dialect::Sqlite] {
            let statements = Statements::new(dialect, "");
            for query in Query::ALL {
                assert!(!statements.text(*query).contains(['{', '}']), "{query:?}");
            }
        }
    }
}
