//! What a command is for, and which role allows it.

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// To know which cluster this is.
    Identify,
    /// To know which collections there are.
    List,
    /// To read the change stream.
    Watch,
    /// To read documents.
    Read,
    /// To know where the oplog begins.
    Oplog,
}

impl Action {
    /// In words, behind `may not` and `refused to`.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Identify => "tell the identity of the cluster",
            Self::List => "list collections",
            Self::Watch => "open the change stream",
            Self::Read => "read documents",
            Self::Oplog => "tell where the oplog begins",
        }
    }

    /// The role that allows it, as the shell takes it.
    pub(super) fn role(self, database: &str) -> String {
        match self {
            Self::Identify | Self::Oplog => "{role: \"clusterMonitor\", db: \"admin\"}".to_owned(),
            Self::List | Self::Watch | Self::Read => format!("{{role: \"read\", db: {database:?}}}"),
        }
    }
}
