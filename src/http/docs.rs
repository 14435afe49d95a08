//! The page of the API description: Swagger UI, which is part of the binary, reading `/openapi.json`.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use utoipa_swagger_ui::Config;

use crate::error::{Error, Result};

/// Nothing is fetched from elsewhere, whatever the page asks for: it works without internet, and tells nobody.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'self'";

/// The files of the page.
pub(super) struct Docs {
    config: Arc<Config<'static>>,
}

impl Docs {
    pub(super) fn new() -> Self {
        // The description is found relative to the page, also behind a proxy that adds a prefix. The validator is a
        // badge that would be fetched from the internet.
        let config = Config::from("../openapi.json")
            .validator_url("none")
            .display_request_duration(true)
            .default_models_expand_depth(0)
            .filter(true);
        Self { config: Arc::new(config) }
    }

    /// One file; the page itself has no name.
    pub(super) fn file(&self, name: &str) -> Result<HttpResponse> {
        let file = utoipa_swagger_ui::serve(name, Arc::clone(&self.config)).map_err(Error::internal)?;
        let file = file.ok_or_else(|| Error::not_found("The page of the API description has no such file."))?;
        let mut response = HttpResponse::with_body(StatusCode::OK, BoxBody::new(file.bytes.into_owned()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(file.content_type).map_err(Error::internal)?);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        if file.gzpipped {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody as _;

    use super::*;

    fn text(name: &str) -> String {
        let response = Docs::new().file(name).unwrap();
        String::from_utf8(response.into_body().try_into_bytes().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn the_page_needs_only_files_that_are_part_of_the_binary() {
        let page = text("");
        let mut found = 0;
        for attribute in ["src=\"", "href=\""] {
            for reference in page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
                let name = reference.strip_prefix("./").unwrap_or(reference);
                assert!(!name.contains("//") && Docs::new().file(name).is_ok(), "{reference}");
                found += 1;
            }
        }
        assert!(found >= 4, "{page}");
    }

    #[test]
    fn the_page_reads_the_description_and_no_validator() {
        let initializer = text("swagger-initializer.js");
        assert!(initializer.contains("\"../openapi.json\""), "{initializer}");
        assert!(initializer.contains("\"validatorUrl\": \"none\""), "{initializer}");
        assert!(Docs::new().file("nothing.js").is_err());
    }
}
