-- silver.purchases: what was bought, from the shop's purchase_completed and from Order Completed of the Segment spec.
SET LOCAL ROLE tidemark_admin;

SELECT silver.create_event_table('purchases', ARRAY['purchase_completed', 'order_completed', 'completed_order',
                                                    'purchase', 'transaction'], '{
    "order_id": "text order.id|order_id|transaction_id|ecommerce.transaction_id|orderId|tr_orderid",
    "revenue": "numeric order.total|revenue|total|ecommerce.purchase_revenue|value|tr_total",
    "currency": "text order.currency|currency|tr_currency|visit.siteCurrency",
    "subtotal": "numeric order.subtotal|subtotal",
    "shipping": "numeric order.shipping|shipping",
    "tax": "numeric order.tax|tax",
    "discount": "numeric order.discount|discount",
    "coupon": "text order.coupon|coupon",
    "payment_method": "text order.payment|payment_method",
    "items": "items order.items|products|itemDetails|items"
}');

-- Better words than silver.create_event_table has; for the live view, too.
DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['silver.purchases', 'silver.purchases_live'] LOOP
        EXECUTE pg_catalog.format($comments$
            COMMENT ON COLUMN %1$s.order_id IS
                'Identity of the order as the shop says; NULL when it does not. '
                'An order that was sent twice with different event ids occurs twice.';
            COMMENT ON COLUMN %1$s.revenue IS
                'What was paid in all, in units of currency; NULL where it is missing or no number.';
            COMMENT ON COLUMN %1$s.currency IS
                'ISO 4217 code of the currency; NULL when the event names none. '
                'Amounts of different currencies must not be added.';
            COMMENT ON COLUMN %1$s.items IS
                'Number of items bought: the sum of the quantities of its lines, 1 for a line without one.'
            $comments$, relation);
    END LOOP;
END
$$;
COMMENT ON TABLE silver.purchases IS
    'Purchases: events of which silver.is_purchase, with their properties typed.';
