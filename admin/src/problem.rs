//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::{query::QueryError, view::ProblemView};

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    /// A problem with its explanation.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let view = ProblemView {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let body = serde_json::to_string(&view).expect("a problem has string keys");
        (self.status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Problem {
        let status = match &error {
            QueryError::NoChain(_) | QueryError::NoLane(_) | QueryError::NoEffect { .. } => {
                StatusCode::NOT_FOUND
            }
            QueryError::Read(_) | QueryError::Storage(_) => {
                tracing::error!(error = %error, "the store could not be read for an admin request");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Problem::new(status, error.to_string())
    }
}
