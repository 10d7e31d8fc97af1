-- silver.sign_ups: new accounts, from the shop's signed_up and from Signed Up of the Segment spec.
SET LOCAL ROLE tidemark_admin;

SELECT silver.create_event_table('sign_ups', ARRAY['signed_up', 'sign_up', 'signup_completed', 'account_created'], '{
    "method": "text method|type",
    "plan": "text plan"
}');
