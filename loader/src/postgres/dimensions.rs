//! What is known of user agents and networks: `silver.user_agents` and `silver.networks`, which are filled before the
//! events that name them are committed, and brought up to new files by `tidemark enrich update`. What the files say is in
//! `enrich`.

use tokio_postgres::{Client, Error as PgError};

use crate::enrich::{Agent, Enrichment, Networks, Place, Strangers};

/// The company's own networks.
pub async fn own_networks(client: &Client) -> Result<Networks, PgError> {
    let rows = client.query("SELECT network::text FROM loader.own_networks", &[]).await?;
    Ok(Networks::of(rows.iter().map(|row| row.get(0))))
}

/// Gives each a row that has none, outside of any transaction: two batches with the same ones must not wait for each
/// other longer than that.
pub async fn add(client: &Client, enrichment: &Enrichment, strangers: &Strangers) -> Result<(), PgError> {
    if !strangers.agents.is_empty() {
        let sql = "INSERT INTO silver.user_agents (user_agent_id, user_agent, browser, browser_version, os, os_version,
                                                   device, bot, enriched_by)
                   SELECT pg_catalog.md5(v.user_agent)::uuid, v.*, $8
                     FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
                          AS v (user_agent, browser, browser_version, os, os_version, device, bot)
                   ON CONFLICT DO NOTHING";
        let texts: Vec<&str> = strangers.agents.iter().map(|(text, _)| text.as_str()).collect();
        let [browser, version, os, os_version, device, bot] =
            agent_columns(strangers.agents.iter().map(|(_, agent)| agent));
        let by = enrichment.agents_by();
        client.execute(sql, &[&texts, &browser, &version, &os, &os_version, &device, &bot, &by]).await?;
    }
    if !strangers.networks.is_empty() {
        let sql = "INSERT INTO silver.networks (ip_prefix, country, region, city, network, enriched_by)
                   SELECT v.ip_prefix::cidr::text, v.country, v.region, v.city, v.network, $6
                     FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
                          AS v (ip_prefix, country, region, city, network)
                   ON CONFLICT DO NOTHING";
        let texts: Vec<&str> = strangers.networks.iter().map(|(text, _)| text.as_str()).collect();
        let [country, region, city, network] =
            place_columns(strangers.networks.iter().map(|(_, place)| place));
        let by = enrichment.places_by();
        client.execute(sql, &[&texts, &country, &region, &city, &network, &by]).await?;
    }
    Ok(())
}

/// Writes what is known now of these user agents, which have rows. Returns of how many that is something else.
pub async fn change_agents(
    client: &Client,
    enrichment: &Enrichment,
    texts: &[String],
) -> Result<u64, PgError> {
    let agents: Vec<Agent> = texts.iter().map(|text| enrichment.agent(text)).collect();
    let [browser, version, os, os_version, device, bot] = agent_columns(agents.iter());
    let sql = "WITH now_known AS (
                   SELECT pg_catalog.md5(v.user_agent)::uuid AS id, v.*
                     FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
                          AS v (user_agent, browser, browser_version, os, os_version, device, bot)
               ), changed AS (
                   SELECT count(*) AS n FROM now_known AS k JOIN silver.user_agents AS u ON u.user_agent_id = k.id
                    WHERE (u.browser, u.browser_version, u.os, u.os_version, u.device, u.bot)
                          IS DISTINCT FROM (k.browser, k.browser_version, k.os, k.os_version, k.device, k.bot)
               ), written AS (
                   UPDATE silver.user_agents AS u
                      SET browser = k.browser, browser_version = k.browser_version, os = k.os,
                          os_version = k.os_version, device = k.device, bot = k.bot, enriched_by = $8
                     FROM now_known AS k WHERE u.user_agent_id = k.id
               )
               SELECT n FROM changed";
    let by = enrichment.agents_by();
    let row =
        client.query_one(sql, &[&texts, &browser, &version, &os, &os_version, &device, &bot, &by]).await?;
    Ok(row.get::<_, i64>(0) as u64)
}

/// The same for networks.
pub async fn change_networks(
    client: &Client,
    enrichment: &Enrichment,
    texts: &[String],
) -> Result<u64, PgError> {
    let places: Vec<Place> = texts.iter().map(|text| enrichment.place(text)).collect();
    let [country, region, city, network] = place_columns(places.iter());
    let sql = "WITH now_known AS (
                   SELECT v.ip_prefix AS id, v.country, v.region, v.city, v.network
                     FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
                          AS v (ip_prefix, country, region, city, network)
               ), changed AS (
                   SELECT count(*) AS n FROM now_known AS k JOIN silver.networks AS n ON n.ip_prefix = k.id
                    WHERE (n.country, n.region, n.city, n.network)
                          IS DISTINCT FROM (k.country, k.region, k.city, k.network)
               ), written AS (
                   UPDATE silver.networks AS n
                      SET country = k.country, region = k.region, city = k.city, network = k.network, enriched_by = $6
                     FROM now_known AS k WHERE n.ip_prefix = k.id
               )
               SELECT n FROM changed";
    let by = enrichment.places_by();
    let row = client.query_one(sql, &[&texts, &country, &region, &city, &network, &by]).await?;
    Ok(row.get::<_, i64>(0) as u64)
}

type Column<'a> = Vec<Option<&'a str>>;

/// Columns of `silver.user_agents`, from browser to bot.
fn agent_columns<'a>(agents: impl Iterator<Item = &'a Agent> + Clone) -> [Column<'a>; 6] {
    let parts: [fn(&Agent) -> &Option<String>; 6] =
        [|a| &a.browser, |a| &a.browser_version, |a| &a.os, |a| &a.os_version, |a| &a.device, |a| &a.bot];
    parts.map(|part| agents.clone().map(|agent| part(agent).as_deref()).collect())
}

/// Columns of `silver.networks`, from country to network.
fn place_columns<'a>(places: impl Iterator<Item = &'a Place> + Clone) -> [Column<'a>; 4] {
    let parts: [fn(&Place) -> &Option<String>; 4] =
        [|p| &p.country, |p| &p.region, |p| &p.city, |p| &p.network];
    parts.map(|part| places.clone().map(|place| part(place).as_deref()).collect())
}
