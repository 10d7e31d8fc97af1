//! SASL OAUTHBEARER: the token is read from a file whenever librdkafka wants one, which is well before the last one
//! expires. Whoever puts the file there, such as an orchestrator, replaces it in time; who gave the token and what it
//! allows is the broker's business.

use std::error::Error;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;

/// The token in this file, which librdkafka knows as `sasl.oauthbearer.config`, with the moment until which it says that
/// it is good. Never shows any of it.
pub(super) fn read(file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
    let file = file.ok_or("kafka.sasl_token_file is not set")?;
    let token = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?.trim().to_owned();
    let claims = claims(&token).ok_or_else(|| format!("{file} holds no JSON Web Token"))?;
    let expires = claims["exp"].as_f64().ok_or_else(|| format!("the token in {file} has no expiry (exp)"))?;
    let principal_name = claims["sub"].as_str().unwrap_or_default().to_owned();
    Ok(OAuthToken { token, principal_name, lifetime_ms: (expires * 1000.0) as i64 })
}

/// The second part of a JSON Web Token (RFC 7519), decoded.
fn claims(token: &str) -> Option<serde_json::Value> {
    let (_, rest) = token.split_once('.')?;
    let (claims, _) = rest.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_with_an_expiry_will_do() {
        let file = std::env::temp_dir().join(format!("tidemark-token-{}", std::process::id()));
        let read = |content: &str| {
            fs::write(&file, content).unwrap();
            read(file.to_str())
        };
        // {"alg":"none"}.{"sub":"alice","exp":1900000000}.
        let good = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6MTkwMDAwMDAwMH0.";
        let token = read(&format!("{good}\n")).unwrap();
        assert_eq!((token.token.as_str(), token.principal_name.as_str()), (good, "alice"));
        assert_eq!(token.lifetime_ms, 1_900_000_000_000);
        for bad in ["", "secret", "secret.secret.secret", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."] {
            let error = read(bad).err().unwrap().to_string();
            assert!(error.contains("tidemark-token") && !error.contains("secret"), "{error}");
        }
        fs::remove_file(&file).unwrap();
        assert!(super::read(file.to_str()).is_err() && super::read(None).is_err());
    }
}
