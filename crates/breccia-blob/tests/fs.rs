//! The store over a folder passes the suite that every blob store passes.

use std::sync::Arc;

use anyhow::Result;
use breccia_blob::BlobStore;
use breccia_blob::fs::{FsOptions, FsStore};
use breccia_testkit::conformance::blob_conformance;

#[tokio::test]
async fn a_folder_conforms() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = FsOptions {
        name: "disk".to_owned(),
        path: folder.path().join("made"),
    };
    let store: Arc<dyn BlobStore> = FsStore::open(&options)?;
    blob_conformance(&store).await?;
    drop(store);
    // And so it does after the index was made anew.
    FsStore::rebuild(&options)?;
    let store: Arc<dyn BlobStore> = FsStore::open(&options)?;
    blob_conformance(&store).await
}
