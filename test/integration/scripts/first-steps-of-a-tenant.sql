-- What the administrator of a new tenant does first.
--
--   psql -v ON_ERROR_STOP=1 -1 -v clerk_password=… -f first-steps-of-a-tenant.sql
--
-- Run it as the tenant's administrator, in the tenant's database. Everything made in here belongs to the own tenant.

CREATE TABLE shop.orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id text NOT NULL DEFAULT current_user,
  item text NOT NULL
);

CREATE ROLE clerk INHERIT readwrite;
CREATE USER carla PASSWORD :'clerk_password' ROLE clerk;
CREATE USER carlo PASSWORD :'clerk_password' ROLE clerk;
SELECT current_database() AS here \gset
GRANT CONNECT ON DATABASE :"here" TO carla, carlo;
GRANT USAGE ON SCHEMA shop TO clerk;
GRANT SELECT, INSERT, UPDATE ON shop.orders TO clerk;

-- Clerks see and change their own orders only.
CREATE RLS POLICY own_orders ON shop.orders FOR ALL USING (user_id = $auth.id);
SHOW RLS POLICIES ON shop.orders;
