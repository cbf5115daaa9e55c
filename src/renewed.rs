//! Values that SIGHUP puts in place of others while they are in use.

use std::sync::{Arc, PoisonError, RwLock};

/// One value, shared by those who use it and whoever renews it.
pub struct Renewed<T>(Arc<RwLock<Arc<T>>>);

impl<T> Renewed<T> {
    /// With this value until another one is set.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The newest value.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        let value = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&value)
    }

    /// From now on this one counts, for all that share it.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

impl<T> Clone for Renewed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for Renewed<T> {
    /// Without the value: most are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_shares_it_has_the_newest() {
        let one = Renewed::new(1);
        let other = one.clone();
        let before = other.get();
        one.set(2);
        assert_eq!((*before, *other.get()), (1, 2));
        assert_eq!(format!("{other:?}"), "Renewed");
    }
}
