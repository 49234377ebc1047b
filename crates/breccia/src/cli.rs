//! The command line.
//!
//! Not what the commands do. Invariant: whatever clap refuses exits with status 2.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::loading::Given;

/// Composite storage backends for any server.
#[derive(Debug, Parser)]
#[command(
    name = "breccia",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway; without a config, the embedded quick start
    Serve(ServeArguments),
    /// Show every fault of a config file at once
    Check(CheckArguments),
    /// Show the slot, the shard and the server of a key, or where an SQL statement goes and why
    Explain(ExplainArguments),
    /// Look at layouts, or mend them when the gateway refuses to start
    #[command(subcommand)]
    Layout(LayoutCommand),
    /// Show what a running gateway does
    Status(StatusArguments),
}

/// `breccia serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Keep layouts here instead of in the config's state.dir
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `breccia check`
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArgument,
    /// Also reach every store
    #[arg(long)]
    pub(crate) connect: bool,
}

/// `breccia explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArgument,
    /// The key is written in hex digits
    #[arg(long)]
    pub(crate) hex: bool,
    /// A statement instead of a key: of a sql-read-replica
    // A statement may begin with a comment.
    #[arg(long, value_name = "STATEMENT", allow_hyphen_values = true)]
    pub(crate) sql: Option<String>,
    /// The database the statement is for; without it, the primary's `database`
    #[arg(long, value_name = "DATABASE")]
    pub(crate) database: Option<String>,
    /// Do not ask the primary for the database's catalogue
    #[arg(long)]
    pub(crate) offline: bool,
    /// The store
    pub(crate) store: String,
    /// The key
    pub(crate) key: Option<std::ffi::OsString>,
}

/// `breccia layout`
#[derive(Debug, Subcommand)]
pub(crate) enum LayoutCommand {
    /// Print the layouts of all composites, or of one
    Show {
        #[command(flatten)]
        config: ConfigArgument,
        /// The composite
        store: Option<String>,
    },
    /// Hold the config against the layouts; exit status 1 if they differ
    Diff {
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Print a layout as a document that another gateway can import
    Export {
        #[command(flatten)]
        config: ConfigArgument,
        /// The composite
        store: String,
    },
    /// Take a layout from a document
    Import {
        #[command(flatten)]
        config: ConfigArgument,
        /// Take it also in place of another layout
        #[arg(long)]
        replace: bool,
        /// The document
        document: PathBuf,
    },
    /// Take the config's layout for a composite whose shards are empty, or hold only objects that lie where it puts them
    Adopt {
        #[command(flatten)]
        config: ConfigArgument,
        /// The composite
        store: String,
    },
    /// Give the layout of a composite the composite's new name
    Rename {
        #[command(flatten)]
        config: ConfigArgument,
        /// The name in the layout
        old: String,
        /// The name in the config
        new: String,
    },
    /// Give a shard of a layout the store's new name
    RenameShard {
        #[command(flatten)]
        config: ConfigArgument,
        /// The composite
        store: String,
        /// The shard's name in the layout
        old: String,
        /// The store's name in the config
        new: String,
    },
    /// Accept that shards have other addresses than when they were last seen
    AcceptAddress {
        #[command(flatten)]
        config: ConfigArgument,
        /// The composite
        store: String,
        /// The shards; without any, all
        shards: Vec<String>,
    },
    /// Write the marker on servers that are known to be the right shards (Redis with marker = true, and blobs)
    Mark {
        #[command(flatten)]
        config: ConfigArgument,
        /// Write it also over another marker
        #[arg(long)]
        replace: bool,
        /// The composite
        store: String,
        /// The servers, by their stores' names
        #[arg(required = true)]
        shards: Vec<String>,
    },
}

/// Which config, and with it which state folder.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgument {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The state folder, if it is not the config's
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl ConfigArgument {
    /// What was given.
    pub(crate) fn given(&self) -> Given<'_> {
        Given {
            config: &self.config,
            data_dir: self.data_dir.as_deref(),
        }
    }
}

/// `breccia status`
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// The gateway's admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9180")]
    pub(crate) admin: String,
    /// Print JSON also on a terminal
    #[arg(long)]
    pub(crate) json: bool,
    /// A file that holds the admin token, if `BRECCIA_ADMIN_TOKEN` does not
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}
