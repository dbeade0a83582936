//! Puts lists in use, and keeps the allow-list.

use deltran_events::data::compliance::ListLoaded;
use deltran_kernel::AllowanceId;
use deltran_messaging::Outgoing;
use deltran_runtime::{Failure, FailureKind};

use super::{By, CommandError, Desk, alert};
use crate::domain::Outcome;
use crate::domain::allowance::{self, Allowance, AllowanceError};
use crate::domain::list::{self, Files, List, ListError, Source};
use crate::store::{self, ListHead, Loaded};

impl From<AllowanceError> for Failure {
    fn from(error: AllowanceError) -> Self {
        let text = error.to_string();
        match error {
            AllowanceError::NoName => Self::malformed("name", text),
            AllowanceError::Expiry(_) => Self::malformed("expires_at", text),
            AllowanceError::NoEntry { .. } | AllowanceError::NotFound(_) => {
                Self::new(FailureKind::NotFound, "not_found", text)
            }
            AllowanceError::Conflict(_) => Self::new(FailureKind::Conflict, "conflict", text),
        }
    }
}

impl Desk {
    /// Puts a list in use, or says that it is in use already.
    ///
    /// # Errors
    /// `malformed` where the list is not good: the one before stays in use, and an alert says so.
    pub async fn load_list(&self, source: Source, files: Files, by: &By) -> Result<Outcome<ListHead>, Failure> {
        // Some megabytes of names: not on a thread that answers requests.
        let (parsed, files) = tokio::task::spawn_blocking(move || (list::parse(source, &files), files))
            .await
            .map_err(Failure::internal)?;
        match parsed {
            Ok(list) => self.put_in_use(list, files, by, false).await,
            Err(error) => {
                self.tell_refused(source, &error, by).await?;
                Err(CommandError::from(error).into())
            }
        }
    }

    /// Puts the list that ships with the product in use, unless any list was loaded before.
    pub(crate) async fn load_bundled(&self) -> Result<(), Failure> {
        let by = By { user: "deltran".into(), trace: None };
        let files = Files::from([(Source::Operator.files()[0].to_owned(), crate::BUNDLED_LIST.to_vec())]);
        let list = list::parse(Source::Operator, &files).map_err(Failure::internal)?;
        self.put_in_use(list, files, &by, true).await?;
        Ok(())
    }

    async fn put_in_use(
        &self,
        list: List,
        files: Files,
        by: &By,
        only_first: bool,
    ) -> Result<Outcome<ListHead>, Failure> {
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let any = only_first && store::lock_any_list(&mut tx).await?;
        let head = store::lock_list_head(&mut tx, list.source).await?;
        let same = head.list.as_ref().is_some_and(|present| present.version == list.version);
        let outcome = if any || same {
            drop(tx);
            Outcome::AlreadyApplied(head)
        } else {
            let revision = head.revision + 1;
            store::use_list(&mut tx, revision, &list, &files, at, &by.user).await?;
            let event = ListLoaded {
                source: list.source.as_str().to_owned(),
                list_version: list.version.clone(),
                names: list.names() as u64,
                loaded_by: by.user.clone(),
                aliases: Some(list.aliases() as u64),
                dated: list.dated.clone(),
            };
            let event = Outgoing::new(event, &list.version, &by.user).traced(by.trace.clone());
            tx.commit(&[event]).await?;
            let loaded = Loaded {
                names: list.names() as u32,
                aliases: list.aliases() as u32,
                version: list.version,
                dated: list.dated,
                at,
                by: by.user.clone(),
                files: files.into_keys().collect(),
            };
            Outcome::Executed(ListHead { source: list.source, revision, list: Some(loaded) })
        };
        self.lists.reload().await?;
        Ok(outcome)
    }

    /// Somebody has to know that a list that was meant to be in use is not.
    async fn tell_refused(&self, source: Source, error: &ListError, by: &By) -> Result<(), Failure> {
        tracing::warn!(list.source = %source, %error, "a list is refused; the one before stays in use");
        let message = format!("a list of source {source} is refused, the one before stays in use: {error}");
        let tx = self.door.begin("command").await?;
        tx.commit(&[alert("list_refused", &message, by)]).await?;
        Ok(())
    }

    /// Adds an allowance, or says that it was added.
    ///
    /// # Errors
    /// `malformed`, `conflict`, `not_found` where the entry is not on the list in force.
    pub async fn add_allowance(&self, wanted: Allowance) -> Result<Allowance, Failure> {
        let snapshot = self.lists.current()?;
        let mut tx = self.door.begin("command").await?;
        store::lock_allow_list(&mut tx).await?;
        let known = store::find_allowance(&mut tx, wanted.allowance_id).await?;
        let outcome = allowance::add(known.as_ref(), wanted)?;
        if let Outcome::Executed(new) = &outcome {
            if !snapshot.has_entry(new.source, &new.entry_id) {
                let (source_list, entry_id) = (new.source, new.entry_id.clone());
                return Err(AllowanceError::NoEntry { source_list, entry_id }.into());
            }
            store::insert_allowance(&mut tx, new).await?;
            tx.commit(&[]).await?;
            self.lists.reload().await?;
        }
        Ok(outcome.into_inner())
    }

    /// Takes an allowance back, or says that it was taken back.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn revoke_allowance(&self, id: AllowanceId, reason: &str, by: &By) -> Result<Allowance, Failure> {
        let now = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        store::lock_allow_list(&mut tx).await?;
        let known = store::find_allowance(&mut tx, id).await?.ok_or(AllowanceError::NotFound(id))?;
        let outcome = allowance::revoke(&known, &by.user, now, reason);
        if let Outcome::Executed(Allowance { revoked: Some(revoked), .. }) = &outcome {
            store::end_allowance(&mut tx, id, revoked).await?;
            tx.commit(&[]).await?;
            self.lists.reload().await?;
        }
        Ok(outcome.into_inner())
    }
}
