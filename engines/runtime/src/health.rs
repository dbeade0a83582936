//! Whether each part of the process is ready, and why not.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

/// Readiness of every part, by name such as `token.writer`.
#[derive(Clone, Default)]
pub struct Health {
    parts: Arc<RwLock<BTreeMap<String, Result<(), String>>>>,
}

impl Health {
    /// Says that a part is ready.
    pub fn ready(&self, part: &str) {
        self.set(part, Ok(()));
    }

    /// Says that a part is not ready, and why.
    pub fn not_ready(&self, part: &str, why: impl Into<String>) {
        self.set(part, Err(why.into()));
    }

    fn set(&self, part: &str, state: Result<(), String>) {
        let mut parts = self.parts.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = parts.insert(part.to_owned(), state.clone());
        if before.as_ref() != Some(&state) {
            match &state {
                Ok(()) => tracing::info!(part, "ready"),
                Err(why) => tracing::warn!(part, why, "not ready"),
            }
        }
    }

    /// What is not ready, with the reason; empty when all is well.
    pub fn problems(&self) -> BTreeMap<String, String> {
        let parts = self.parts.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        parts.iter().filter_map(|(part, state)| Some((part.clone(), state.as_ref().err()?.clone()))).collect()
    }

    /// What is not ready in an engine.
    pub fn problems_of(&self, engine: &str) -> Vec<String> {
        let prefix = format!("{engine}.");
        self.problems()
            .into_iter()
            .filter(|(part, _)| part.starts_with(&prefix))
            .map(|(part, why)| format!("{part}: {why}"))
            .collect()
    }
}
