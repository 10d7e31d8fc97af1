-- silver.trait_changes: what events say of persons for now on: Segment's identify, PostHog's $set, Amplitude's
-- $identify, and the traits that the shop sends with a login.
SET LOCAL ROLE tidemark_admin;

SELECT silver.create_event_table('trait_changes', ARRAY['identify', '$identify', '$set', 'signed_up', 'sign_up',
                                                        'signup_completed', 'account_created', 'logged_in'], '{
    "plan": "text plan|/context/traits/plan|$set.plan|/user_properties/$set/plan",
    "company": "text company.name|company|/context/traits/company|$set.company|/user_properties/$set/company",
    "unset": "unset"
}');
COMMENT ON TABLE silver.trait_changes IS
    'What events say of persons for now on: plan and company. gold.persons has what is valid when.';
