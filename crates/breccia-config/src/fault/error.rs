//! Everything that can be wrong at one place of a file.
//!
//! Not where it is: a [`super::Fault`] adds that. Invariant: a message is `what; what to do`, on one
//! line, and shows no secret and no part of a url.

use std::io;
use std::path::PathBuf;

/// What is wrong at one place of a configuration. Each message is `what; what to do`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    // The file as such.
    /// The file cannot be read.
    #[error("cannot be read ({source}); check the path and who may read it")]
    Unreadable {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("is larger than {limit}; this is not a configuration file")]
    TooLarge {
        /// The limit.
        limit: String,
    },
    /// The file is not text.
    #[error("is not UTF-8 text; save the file as UTF-8")]
    NotUtf8,
    /// The text is not TOML.
    #[error("not valid TOML: {message}; correct this place and check again")]
    Syntax {
        /// What the parser says.
        message: String,
    },

    /// The file has more faults than anybody reads.
    #[error("has more than {limit} faults; mend these first")]
    TooMany {
        /// How many are told.
        limit: usize,
    },

    // Keys and values.
    /// No such key in this table.
    #[error("unknown key; {mend}")]
    UnknownKey {
        /// What to do.
        mend: String,
    },
    /// A required key is absent.
    #[error("is missing; add {example}")]
    MissingKey {
        /// A line that would do.
        example: String,
    },
    /// The value has another type.
    #[error("must be {expected}, not {found}; write for example {example}")]
    WrongType {
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
        /// A value that would do.
        example: String,
    },
    /// The value is too small or too large.
    #[error("is {found}, out of range; write a value from {least} to {most}")]
    OutOfRange {
        /// The value.
        found: String,
        /// The least value allowed.
        least: String,
        /// The greatest value allowed.
        most: String,
    },
    /// The text is empty.
    #[error("is empty; write a value, or leave the key out if it is optional")]
    Empty,
    /// The text holds a control character.
    #[error("holds a control character; take it out")]
    ControlCharacter,
    /// The text is no duration.
    #[error(
        "{found} is not a duration; write a whole number with ms, s, m, h or d, such as \"500ms\""
    )]
    BadDuration {
        /// The text, quoted.
        found: String,
    },
    /// The text is no size.
    #[error(
        "{found} is not a size; write a whole number of bytes, or one with KiB, MiB, GiB, KB, MB or GB, such as \"64MiB\""
    )]
    BadSize {
        /// The text, quoted.
        found: String,
    },
    /// The value is none of a list.
    #[error("{found} is not known; {mend}")]
    UnknownChoice {
        /// The value, quoted.
        found: String,
        /// What to do.
        mend: String,
    },
    /// The value belongs to a later release.
    #[error("{found} is not in this release; write one of: {known}")]
    NotInRelease {
        /// The value, quoted.
        found: String,
        /// The values of this release.
        known: String,
    },
    /// A name that cannot be a store's or a listener's.
    #[error(
        "is not a name that can be used; write 1 to {most} letters, digits, '-', '_' or '.', and begin with a letter, a digit or '_'"
    )]
    BadName {
        /// The longest name, in bytes.
        most: usize,
    },
    /// A name with a dot, written without quotes.
    #[error("holds only tables; a name with a dot needs quotes: {example}")]
    DottedName {
        /// The name as it was probably meant, in quotes.
        example: String,
    },
    /// A name that cannot be a command's.
    #[error("is not a command name; write printable ASCII without spaces, such as \"JSON.GET\"")]
    BadCommandName,

    // Urls and addresses. A url may hold a password: its text is never shown.
    /// The url has an unknown scheme.
    #[error("the url has no scheme known here; write redis://, rediss:// (TLS) or unix:///path")]
    UrlScheme,
    /// The url's host is missing or malformed.
    #[error(
        "the url has no valid host; write redis://host:port/database, an IPv6 address in [ ], and percent-encode '/', '?', '#' and '@' in a password"
    )]
    UrlHost,
    /// The url's port is no port.
    #[error(
        "the url's port is not a number from 1 to 65535; write redis://host:port/database, and percent-encode ':', '/' and '@' in a password"
    )]
    UrlPort,
    /// The url's database is no number.
    #[error("the url's database is not a number; write it as in redis://127.0.0.1:6379/0")]
    UrlDatabase,
    /// A percent sequence of the url is malformed.
    #[error("the url has a '%' that no valid percent-encoding follows; write a '%' itself as %25")]
    UrlEscape,
    /// The url has a parameter other than `db`.
    #[error("the url has an unknown parameter; only unix:///path?db=N has one")]
    UrlParameter,
    /// The url has a fragment other than `#insecure`.
    #[error(
        "the url has an unknown '#' part; only rediss://…#insecure has one, and a '#' in a password is written %23"
    )]
    UrlFragment,
    /// `#insecure` on a url without TLS.
    #[error("#insecure is for TLS, and this url has none; write rediss://, or drop #insecure")]
    UrlInsecureWithoutTls,
    /// A Unix url without an absolute path.
    #[error("the url has no absolute path; write unix:///path/to/socket, with three slashes")]
    UrlPath,
    /// The text is no address.
    #[error(
        "{found} is not an address; write \"host:port\", \"[IPv6]:port\" or \"unix:/path/to/socket\""
    )]
    BadAddress {
        /// The text, quoted.
        found: String,
    },
    /// The text is nothing a listener can listen on.
    #[error("{found} is not a place to listen on; write {mend}")]
    BadBind {
        /// The text, quoted.
        found: String,
        /// What to write.
        mend: String,
    },
    /// The path is too long for a Unix socket.
    #[error("the socket's path has more than {limit} bytes; choose a shorter one")]
    SocketPathTooLong {
        /// The limit.
        limit: usize,
    },
    /// The text has not the form that is wanted here.
    #[error("{found} cannot stand here; write {form}")]
    BadForm {
        /// The text, quoted, if it may be shown.
        found: String,
        /// What to write.
        form: &'static str,
    },
    /// The text is no endpoint. It is not shown: it may hold a password or a token.
    #[error("is not an endpoint; write http://host:port or https://host:port, without {but}")]
    BadEndpoint {
        /// What it may not have.
        but: &'static str,
    },
    /// The text is no pair of hash-tag signs.
    #[error("{found} is not a hash tag; write the opening and the closing sign, such as \"{{}}\"")]
    BadHashTag {
        /// The text, quoted.
        found: String,
    },
    /// The text is no layout digest.
    #[error(
        "{found} is not a layout digest; write the 16 hex digits that `breccia layout show` prints"
    )]
    BadDigest {
        /// The text, quoted.
        found: String,
    },

    // Secrets and files.
    /// A secret table with none or both of its keys.
    #[error("a secret has exactly one source; write {{ env = \"NAME\" }} or {{ file = \"PATH\" }}")]
    SecretSource,
    /// Not the name of an environment variable. The text is not shown: it may be the secret.
    #[error(
        "is not the name of an environment variable; write letters, digits and '_', and the secret itself into that variable"
    )]
    EnvName,
    /// The environment variable is not set.
    #[error("the environment variable {name} is not set; set it, or use {{ file = \"PATH\" }}")]
    EnvMissing {
        /// Its name.
        name: String,
    },
    /// A secret is empty.
    #[error("the secret is empty; give it a value, or leave the key out")]
    SecretEmpty,
    /// A secret holds a line break or another control character.
    #[error("the secret holds a control character; keep it to one line of text")]
    SecretControlCharacter,
    /// The file of a secret is too large or no text.
    #[error("the file {path} does not hold a secret (at most 64 KiB of UTF-8 text); name another")]
    SecretFileContent {
        /// The file.
        path: PathBuf,
    },
    /// A file the configuration names cannot be read.
    #[error("cannot read {path} ({source}); check the path and who may read it")]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    // One store.
    /// Both the url and a key say the same thing.
    #[error("the url has a {what} too; keep one of the two")]
    UrlConflict {
        /// `user` or `password`.
        what: &'static str,
    },
    /// A user without a password.
    #[error(
        "a user needs a password; add `password`, or write :password@ in the url if the user was meant as the password"
    )]
    UserWithoutPassword,
    /// `tls` beside a url, an endpoint or a socket without TLS.
    #[error("{what} asks for no TLS; write {mend}, or drop `tls`")]
    TlsNotAsked {
        /// What has no TLS.
        what: &'static str,
        /// What would have.
        mend: &'static str,
    },
    /// A key without another that it needs, such as a certificate without its key.
    #[error("`{present}` needs `{absent}` beside it; add it, or drop `{present}`")]
    Pair {
        /// The key that is there.
        present: &'static str,
        /// The key that is not.
        absent: &'static str,
    },
    /// Two keys that exclude each other.
    #[error("`{one}` and `{other}` exclude each other; keep one of the two")]
    Exclusive {
        /// A key.
        one: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// Checks are asked for and switched off at once.
    #[error("{what} accepts any certificate, so `{present}` has no use; drop one of the two")]
    TlsInsecureConflict {
        /// What switches the checks off.
        what: String,
        /// The key that asks for a check.
        present: &'static str,
    },
    /// The stall gate would never close.
    #[error(
        "is {stall_gate}, longer than `timeout` ({timeout}), so it would never act; make it shorter"
    )]
    StallGateAboveTimeout {
        /// The gate.
        stall_gate: String,
        /// The timeout.
        timeout: String,
    },
    /// Eviction without a limit.
    #[error("evicts nothing without a limit; add `max-memory`, or write \"noeviction\"")]
    EvictionWithoutLimit,
    /// The databases end above the greatest number.
    #[error("the databases from {first} on end above 2147483647; make it smaller")]
    DatabaseRange {
        /// The url's database.
        first: u32,
    },
    /// The key positions of a command contradict each other.
    #[error(
        "is {last_key}, which is no last key after first-key {first_key}; write {first_key} or more, or -1 for the last argument"
    )]
    LastKey {
        /// The first key.
        first_key: i64,
        /// The last key.
        last_key: i64,
    },
    /// One command, told twice in different spellings.
    #[error("the command is already described as {other}; keep one of the two")]
    CommandTwice {
        /// The other spelling, quoted.
        other: String,
    },

    // Composites.
    /// No store has that name, or no bucket.
    #[error("no {what} is named {name}; {mend}")]
    Undefined {
        /// What has no such name.
        what: &'static str,
        /// The name, quoted.
        name: String,
        /// What to do.
        mend: String,
    },
    /// A composite without members.
    #[error("lists no store; list at least one")]
    NoMembers,
    /// A store is listed twice in one list.
    #[error("lists '{name}' twice; list each store once")]
    ListedTwice {
        /// The store.
        name: String,
    },
    /// A store is reached on two ways.
    #[error(
        "lists '{name}', which '{other}' lists too, and '{root}' holds both; keep one of the two"
    )]
    ReachedTwice {
        /// The store.
        name: String,
        /// The composite that lists it as well.
        other: String,
        /// The composite that holds both.
        root: String,
    },
    /// A composite contains itself.
    #[error("contains itself ({path}); take one of these out of the list that holds it")]
    Cycle {
        /// `a -> b -> a`.
        path: String,
    },
    /// Composites nest too deeply.
    #[error("nests composites more than {limit} deep; nest fewer")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A composite has too many leaves.
    #[error("has {leaves} shards in all, more than {limit}; list fewer stores")]
    TooManyShards {
        /// How many it has.
        leaves: usize,
        /// The limit.
        limit: usize,
    },
    /// Two shards of a composite are one.
    #[error(
        "lies where store '{other}' lies ({location}), and '{composite}' has both as shards; give each shard a server or database of its own"
    )]
    SameLocation {
        /// The other store.
        other: String,
        /// The address both have, and the database.
        location: String,
        /// The composite that holds both.
        composite: String,
    },

    /// Markers of blob shards switched off.
    #[error(
        "blob shards always carry a marker with the layout: it tells a lost or exchanged shard from an empty one; take `marker` out"
    )]
    MarkerAlways,
    /// A member that holds another kind of data.
    #[error(
        "lists '{name}', which is of type {kind}, and a {composite} composite is made of {wanted}; take it out, or list it in a {other} composite"
    )]
    OtherFamily {
        /// The member.
        name: String,
        /// Its type.
        kind: &'static str,
        /// The composite's type.
        composite: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// The composite type that takes the member.
        other: &'static str,
    },
    /// Two blob stores are one.
    #[error("lies where store '{other}' lies ({location}); give each store a place of its own")]
    SamePlace {
        /// The other store.
        other: String,
        /// Where both lie.
        location: String,
    },
    /// A blob store lies inside of another, or around it.
    #[error(
        "lies {way} store '{other}' ({location}), and one would take the other's data for its own; give each a place of its own"
    )]
    NestedPlace {
        /// Inside of, or around.
        way: &'static str,
        /// The other store.
        other: String,
        /// Where the other one lies.
        location: String,
    },
    /// One blob store is a shard of two composites.
    #[error(
        "is a shard of '{first}' and of '{second}', and a blob store carries the marker of one; give each a store of its own"
    )]
    SharedBlobShard {
        /// A composite.
        first: String,
        /// Another one.
        second: String,
    },

    /// A store is where a listener listens.
    #[error(
        "is where {listener} listens, so Breccia would connect to itself; change one of the two"
    )]
    OwnListener {
        /// The listener's key.
        listener: String,
    },

    // Listeners.
    /// Anybody could use the listener.
    #[error(
        "{bind} can be reached by others, and nobody has to log in; add {proof}, bind to 127.0.0.1 or a Unix socket, or write insecure = true"
    )]
    OpenListener {
        /// Where it listens.
        bind: String,
        /// What clients could show.
        proof: String,
    },
    /// Anybody could log in as this user.
    #[error(
        "{bind} can be reached by others, and this user has no password; add `password`, or write insecure = true in the listener"
    )]
    OpenUser {
        /// Where it listens.
        bind: String,
    },
    /// Two users with one name.
    #[error("user '{name}' is there already; give each user a name of its own")]
    UserTwice {
        /// The name.
        name: String,
    },
    /// Users of a listener whose protocol has no log-in.
    #[error(
        "memcached's text protocol has no log-in; drop the user, and use tls with client-ca, a Unix socket or loopback"
    )]
    NoLogIn,
    /// A memcached listener over shards that cannot serve it.
    #[error(
        "a memcached listener needs shards that hold flags and a CAS token, and Redis holds neither: {redis}; serve memcached or memory stores, or use protocol = \"redis\""
    )]
    MemcachedOverRedis {
        /// The stores of type redis.
        redis: String,
    },
    /// A store of another kind of data than the protocol's.
    #[error(
        "protocol = \"{protocol}\" serves {wanted}, and '{store}' is of type {kind}; serve another store, or use {other}"
    )]
    OtherProtocol {
        /// The listener's protocol.
        protocol: &'static str,
        /// What it serves.
        wanted: &'static str,
        /// The store.
        store: String,
        /// Its type.
        kind: &'static str,
        /// The protocol that serves it.
        other: &'static str,
    },
    /// A blob store by itself behind an S3 listener.
    #[error(
        "an S3 listener serves composites, whose shards carry markers, and '{store}' is of type {kind}; wrap it: a [store.NAME] with type = \"sharded-blob\" and stores = [\"{store}\"]"
    )]
    NeedsComposite {
        /// The store.
        store: String,
        /// Its type.
        kind: &'static str,
    },
    /// Raw keys are asked for where keys carry the names of buckets.
    #[error(
        "'{composite}' has placement-key = \"stalwart\", which needs object names as Stalwart wrote them, without a bucket; write buckets = {{ NAME = \"{store}\" }}"
    )]
    StalwartNeedsBuckets {
        /// The composite with the rule.
        composite: String,
        /// The store that is served.
        store: String,
    },
    /// One store with keys that carry their bucket's name, and without.
    #[error(
        "'{store}' is served with `store` by {other}, where its keys carry their bucket's name, and with `buckets` here; serve it in one way"
    )]
    BucketModes {
        /// The store.
        store: String,
        /// The other listener's key.
        other: String,
    },
    /// A key of another protocol.
    #[error("has no meaning with protocol = \"{protocol}\"; {mend}")]
    ForeignKey {
        /// The listener's protocol.
        protocol: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// An S3 listener that nobody has keys for.
    #[error(
        "S3 clients sign with keys, on loopback too, and no user has any; add a [[{listener}.user]] with access-key and secret-key, or write insecure = true to let anybody in unsigned"
    )]
    NoS3User {
        /// The listener's key.
        listener: String,
    },
    /// Two users with one access key.
    #[error("another user has this access key; give each user a key of its own")]
    AccessKeyTwice,
    /// Two listeners in one place.
    #[error("{bind} is taken by {other}; give each listener a place of its own")]
    BindTaken {
        /// Where it listens.
        bind: String,
        /// The other listener's key.
        other: String,
    },
    /// The admin listener would be open.
    #[error(
        "{bind} can be reached by others; add `token`, bind to 127.0.0.1, or write insecure = true"
    )]
    OpenAdmin {
        /// Where it listens.
        bind: String,
    },

    /// What is about SQL.
    #[error(transparent)]
    Sql(#[from] super::SqlConfigError),
    /// What is about Redis members.
    #[error(transparent)]
    Redis(#[from] super::RedisConfigError),

    /// A gap in Breccia's own field tables; a test holds this impossible.
    #[error("Breccia could not make a plan of this; please report it with the file")]
    Incomplete,
}
