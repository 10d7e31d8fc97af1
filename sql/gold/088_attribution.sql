-- What channels and campaigns brought, over more than the session of a purchase.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION gold.attribution_report(
    from_date date, to_date date, model text DEFAULT 'last', look_back interval DEFAULT '90 days',
    breakdown text DEFAULT 'channel'
) RETURNS TABLE (touch text, currency text, purchases numeric, revenue numeric)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF (breakdown IN ('channel', 'utm_source', 'utm_medium', 'utm_campaign', 'entry_page')) IS NOT TRUE THEN
        RAISE EXCEPTION 'breakdown must be channel, utm_source, utm_medium, utm_campaign or entry_page, got %',
            quote_nullable(breakdown) USING ERRCODE = '22023';
    ELSIF from_date IS NULL OR to_date IS NULL OR NOT isfinite(from_date) OR NOT isfinite(to_date) THEN
        RAISE EXCEPTION 'from_date and to_date must be finite dates' USING ERRCODE = '22023';
    ELSIF from_date >= to_date THEN
        RAISE EXCEPTION 'to_date must be after from_date' USING ERRCODE = '22023', HINT = 'It is exclusive: the day '
            'after the last one.';
    END IF;
    -- What is wrong with these is said here, without the query below.
    PERFORM tidemark.attribution(model, look_back, now(), NULL, NULL);
    RETURN QUERY
    WITH bought AS (
        SELECT p.known_person AS person, p.event_time, COALESCE(p.currency, 'unknown') AS currency,
               COALESCE(p.revenue, 0) AS revenue
          FROM silver.purchases AS p
         WHERE p.event_time >= gold.date_start(from_date) AND p.event_time < gold.date_start(to_date)
           AND p.excluded_as IS NULL
    ), happened AS (
        SELECT b.person, b.currency, b.event_time, NULL AS touch, b.revenue FROM bought AS b
        UNION ALL
        SELECT s.person, b.currency, s.started_at,
               -- A campaign may be called Direct: what is none has no blank before it.
               CASE WHEN s.channel = 'Direct' THEN 'Direct' ELSE ' ' || COALESCE(CASE breakdown
                   WHEN 'channel' THEN s.channel WHEN 'utm_source' THEN s.utm_source
                   WHEN 'utm_medium' THEN s.utm_medium WHEN 'utm_campaign' THEN s.utm_campaign
                   WHEN 'entry_page' THEN s.entry_page END, '(none)') END, NULL
          FROM (SELECT DISTINCT x.person, x.currency FROM bought AS x) AS b
          JOIN gold.sessions AS s ON s.person = b.person
         WHERE s.channel <> 'Unknown' AND s.started_at >= gold.date_start(from_date) - look_back
           AND s.started_at < gold.date_start(to_date)
    )
    SELECT CASE WHEN c.channel LIKE ' %' THEN substr(c.channel, 2) WHEN breakdown = 'channel' THEN c.channel
                ELSE '(' || lower(c.channel) || ')' END,
           j.currency, trim_scale(round(sum(c.weight)::numeric, 6)), sum(c.amount)
      FROM (SELECT h.currency,
                   tidemark.attribution(model, look_back, h.event_time, h.touch, h.revenue) AS credits
              FROM happened AS h
             GROUP BY h.person, h.currency) AS j
     CROSS JOIN LATERAL unnest(j.credits) AS c
     GROUP BY 1, 2
     ORDER BY sum(c.amount) DESC, 1;
END
$$;
COMMENT ON FUNCTION gold.attribution_report(date, date, text, interval, text) IS
    'What touches got of the purchases from from_date to the day before to_date (dates of gold.reporting), by model: '
    'see tidemark.attribution. Touches are the sessions of the person known now that began up to look_back before the '
    'purchase, but for those of channel Unknown. breakdown: channel, utm_source, utm_medium, utm_campaign or '
    'entry_page of the session. touch: its value, (none) without one, Direct or (direct) of direct sessions, '
    'Unattributed or (unattributed) of purchases without a touch. '
    'purchases: sum of the weights; revenue adds up to that of gold.revenue_daily to the cent. As of the last refresh.';
GRANT EXECUTE ON FUNCTION gold.attribution_report(date, date, text, interval, text) TO tidemark_reader;
