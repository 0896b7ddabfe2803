//! The methods a program knows.

use std::sync::Arc;

use rondo_proto::nearest::nearest;

use crate::error::MethodError;
use crate::method::Method;
use crate::methods::{FedExLora, FedIt, FedSb, FedSvd, FfaLora, FlexLora, Flora, Miss, RoLora, ZeroPad};

/// Methods by id. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    methods: Vec<Arc<dyn Method>>,
}

impl Registry {
    /// No methods.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The methods that this crate brings.
    pub fn builtin() -> Self {
        let methods: Vec<Arc<dyn Method>> = vec![
            Arc::new(FedIt),
            Arc::new(FfaLora),
            Arc::new(Flora),
            Arc::new(FedSb),
            Arc::new(FedExLora),
            Arc::new(FlexLora),
            Arc::new(RoLora),
            Arc::new(FedSvd),
            Arc::new(ZeroPad),
            Arc::new(Miss),
        ];
        Self { methods }
    }

    /// Adds a method. Its id must be new, in lower-case letters, digits and `-`.
    ///
    /// # Errors
    /// The id is empty, has another character, or is registered already.
    pub fn register(&mut self, method: Box<dyn Method>) -> Result<(), MethodError> {
        let refuse = |problem: &str| {
            Err(MethodError::Registration { method: method.id().to_owned(), problem: problem.to_owned() })
        };
        let id = method.id();
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            return refuse("the id must be lower-case letters, digits and `-`");
        }
        if self.methods.iter().any(|known| known.id() == id) {
            return refuse("a method with this id is registered already");
        }
        self.methods.push(Arc::from(method));
        Ok(())
    }

    /// The method with this id; an unknown id is refused with the nearest known one.
    ///
    /// # Errors
    /// No method has this id.
    pub fn get(&self, id: &str) -> Result<&dyn Method, MethodError> {
        self.shared(id).map(|method| &**method)
    }

    pub(crate) fn shared(&self, id: &str) -> Result<&Arc<dyn Method>, MethodError> {
        self.methods.iter().find(|method| method.id() == id).ok_or_else(|| MethodError::UnknownMethod {
            id: id.to_owned(),
            nearest: nearest(id, self.methods.iter().map(|method| method.id())).map(str::to_owned),
            known: self.methods.iter().map(|method| method.id().to_owned()).collect(),
        })
    }

    /// All methods, in the order of registration.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Method> {
        self.methods.iter().map(|method| &**method)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.methods.iter().map(|method| method.id())).finish()
    }
}
