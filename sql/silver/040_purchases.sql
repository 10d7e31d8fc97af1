-- silver.purchases: what was bought, from the shop's purchase_completed and from Order Completed of the Segment spec.
SET LOCAL ROLE tidemark_admin;

SELECT silver.create_event_table('purchases', ARRAY['purchase_completed', 'order_completed', 'completed_order'], '{
    "order_id": "text order.id|order_id",
    "revenue": "numeric order.total|revenue|total",
    "currency": "text order.currency|currency",
    "subtotal": "numeric order.subtotal|subtotal",
    "shipping": "numeric order.shipping|shipping",
    "tax": "numeric order.tax|tax",
    "discount": "numeric order.discount|discount",
    "coupon": "text order.coupon|coupon",
    "payment_method": "text order.payment|payment_method",
    "items": "items order.items|products|items"
}');

COMMENT ON TABLE silver.purchases IS 'Purchases: events purchase_completed, order_completed and completed_order with their properties typed.';
COMMENT ON COLUMN silver.purchases.order_id IS 'Identity of the order as the shop says; NULL when it does not. An order that was sent twice with different event ids occurs twice.';
COMMENT ON COLUMN silver.purchases.revenue IS 'What was paid in all, in units of currency; NULL where it is missing or no number.';
COMMENT ON COLUMN silver.purchases.currency IS 'ISO 4217 code of the currency; NULL when the event names none. Amounts of different currencies must not be added.';
COMMENT ON COLUMN silver.purchases.items IS 'Number of items bought: the sum of the quantities of its lines, 1 for a line without one.';

-- The live view describes itself like the table, which has better words now than when both were made.
SELECT tidemark_internal.create_live_view('silver.purchases');
