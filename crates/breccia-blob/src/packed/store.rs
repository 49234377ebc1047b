//! The members that pack records as [`BlobStore`](crate::store::BlobStore)s: what is the same for all.
//!
//! Not how a member reads and writes: that is its own. Invariant: nothing is decided here.

/// Makes a [`Member`](super::Member) a store: its type, its kind, the scheme of its location, and the
/// field that names its place on the server.
macro_rules! as_blob_store {
    ($store:ty, $kind:expr, $scheme:literal, $place:ident) => {
        impl BlobStore for $store {
            fn name(&self) -> &str {
                &self.name
            }

            fn kind(&self) -> StoreKind {
                $kind
            }

            fn location(&self) -> Option<String> {
                let endpoint = self.client.endpoint();
                let scheme = if endpoint.https { "https" } else { "http" };
                Some(format!(
                    "{}:{scheme}://{}{}/{}/{}",
                    $scheme,
                    endpoint.host_header(),
                    endpoint.base_path,
                    self.$place,
                    self.names.prefix()
                ))
            }

            fn key_mode(&self) -> Option<&'static str> {
                Some(self.names.mode_name())
            }

            fn conditional(&self) -> ConditionalSupport {
                guard::support(self)
            }

            fn probe_conditional(&self) -> StoreFuture<'_, ConditionalSupport> {
                Box::pin(guard::probe(self))
            }

            fn accepts(&self, key: &Key) -> Result<(), BlobError> {
                self.name_of(key).map(drop)
            }

            fn put<'a>(
                &'a self,
                key: &'a Key,
                body: Body,
                options: PutOptions,
            ) -> StoreFuture<'a, Written> {
                Box::pin(self.put_object(key, body, options))
            }

            fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
                Box::pin(self.get_object(key, options))
            }

            fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
                Box::pin(self.head_object(key))
            }

            fn delete<'a>(
                &'a self,
                key: &'a Key,
                condition: WriteCondition,
            ) -> StoreFuture<'a, bool> {
                Box::pin(self.delete_object(key, condition))
            }

            fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
                Box::pin(listing::list(self, request))
            }

            fn copy<'a>(
                &'a self,
                from: &'a Key,
                to: &'a Key,
                options: CopyOptions,
            ) -> StoreFuture<'a, Written> {
                Box::pin(self.copy_object(from, to, options))
            }

            fn set_tags<'a>(&'a self, key: &'a Key, tags: Tags) -> StoreFuture<'a, ()> {
                Box::pin(self.replace_tags(key, tags))
            }

            fn create_upload<'a>(
                &'a self,
                key: &'a Key,
                options: UploadOptions,
            ) -> StoreFuture<'a, UploadId> {
                Box::pin(uploads::begin(self, key, options))
            }

            fn put_part<'a>(
                &'a self,
                key: &'a Key,
                upload: &'a UploadId,
                number: u16,
                body: Body,
            ) -> StoreFuture<'a, PartInfo> {
                Box::pin(self.write_part(key, upload, number, body))
            }

            fn complete_upload<'a>(
                &'a self,
                key: &'a Key,
                upload: &'a UploadId,
                parts: Vec<PartChoice>,
                options: CompleteOptions,
            ) -> StoreFuture<'a, Written> {
                Box::pin(self.finish_upload(key, upload, parts, options))
            }

            fn abort_upload<'a>(
                &'a self,
                key: &'a Key,
                upload: &'a UploadId,
            ) -> StoreFuture<'a, ()> {
                Box::pin(uploads::abort(self, key, upload))
            }

            fn list_parts<'a>(
                &'a self,
                key: &'a Key,
                upload: &'a UploadId,
                after: u16,
                limit: usize,
            ) -> StoreFuture<'a, PartPage> {
                Box::pin(uploads::part_page(self, key, upload, after, limit))
            }

            fn list_uploads(
                &self,
                prefix: Bytes,
                after: Option<(Key, Option<UploadId>)>,
                limit: usize,
            ) -> StoreFuture<'_, UploadPage> {
                Box::pin(async move { uploads::page(self, &prefix, after, limit).await })
            }

            fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
                Box::pin(async move { self.read_small(&self.names.reserved(name)).await })
            }

            fn write_reserved<'a>(
                &'a self,
                name: &'a str,
                bytes: Bytes,
                how: ReservedWrite,
            ) -> StoreFuture<'a, bool> {
                Box::pin(reserved::write(self, name, bytes, how))
            }

            fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
                Box::pin(async move {
                    let name = self.names.reserved(name);
                    self.remove(&name, &Guard::None).await.map(drop)
                })
            }

            fn list_reserved<'a>(
                &'a self,
                prefix: &'a str,
                after: Option<&'a str>,
            ) -> StoreFuture<'a, Vec<String>> {
                Box::pin(reserved::list(self, prefix, after))
            }

            fn probe(&self) -> StoreFuture<'_, ()> {
                Box::pin(self.sign_of_life())
            }

            fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
                Box::pin(uploads::maintain(self, expired_before_ms))
            }
        }
    };
}
pub(crate) use as_blob_store;
