//! Reserved objects lie outside of the clients' keys.

use anyhow::{Result, ensure};
use breccia_blob::store::{BlobStore, ReservedWrite};
use bytes::Bytes;

use super::request;

pub(super) async fn check(store: &dyn BlobStore) -> Result<()> {
    let name = |number: u32| format!("suite/object-{number:03}");
    ensure!(
        store.read_reserved("suite/none").await?.is_none(),
        "there is none"
    );
    for number in 0..5 {
        let bytes = Bytes::from(format!("value {number}"));
        let how = ReservedWrite::IfAbsent;
        ensure!(
            store.write_reserved(&name(number), bytes, how).await?,
            "it was absent"
        );
    }
    let (again, name_1) = (Bytes::from_static(b"again"), name(1));
    let how = ReservedWrite::IfAbsent;
    ensure!(
        !store.write_reserved(&name_1, again.clone(), how).await?,
        "it was there"
    );
    ensure!(
        store.read_reserved(&name_1).await? == Some(Bytes::from_static(b"value 1")),
        "kept"
    );
    ensure!(
        store
            .write_reserved(&name_1, again.clone(), ReservedWrite::Always)
            .await?,
        "written"
    );
    ensure!(
        store.read_reserved(&name_1).await? == Some(again),
        "replaced"
    );
    let all: Vec<String> = (0..5).map(name).collect();
    ensure!(
        store.list_reserved("suite/", None).await? == all,
        "all are listed in order"
    );
    let behind = store.list_reserved("suite/", Some(&name(2))).await?;
    ensure!(behind == [name(3), name(4)], "behind the third: {behind:?}");
    let page = store.list(request("", None, None, 1000)).await?;
    ensure!(
        page.items
            .iter()
            .all(|item| item.name().starts_with(b"conformance/")),
        "reserved objects are in the clients' listing: {:?}",
        page.items
            .iter()
            .map(|item| item.name().escape_ascii().to_string())
            .collect::<Vec<_>>()
    );
    for number in 0..5 {
        store.delete_reserved(&name(number)).await?;
    }
    store.delete_reserved("suite/none").await?;
    ensure!(
        store.list_reserved("suite/", None).await?.is_empty(),
        "all are gone"
    );
    Ok(())
}
