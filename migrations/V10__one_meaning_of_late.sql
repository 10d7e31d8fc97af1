-- Late has one meaning: received later than allowed. What daily activity counts beside the events is another thing, those
-- received after their date was over, and gets a name of its own. The scripts in sql/ say the rest; without this they
-- would meet views whose column has the old name.
DO $$
DECLARE
    entry text;
BEGIN
    FOREACH entry IN ARRAY ARRAY['gold_storage.daily_activity', 'gold_storage.daily_activity_live', 'gold.daily_actives', 'gold.daily_actives_live',
                                 'gold.daily_actives_by_platform_country', 'gold.daily_actives_by_platform_country_live'] LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = pg_catalog.to_regclass(entry) AND a.attname = 'late_events' AND NOT a.attisdropped) THEN
            -- Takes views, too.
            EXECUTE pg_catalog.format('ALTER TABLE %s RENAME COLUMN late_events TO received_after_day', entry);
        END IF;
    END LOOP;
END
$$;

COMMENT ON COLUMN bronze.events.received_at IS
    'When the broker got it (Kafka record timestamp; receivedAt for files); lateness = received_at - event_time. The event time itself where nobody knows the receipt, so the lateness is 0';
