-- A new customer: tenant, database, administrator, and the account of the customer's application.
--
--   psql -v ON_ERROR_STOP=1 -v tenant=acme -v number=42 -v chief_password=… -f set-up-tenant.sql
--
-- Run it as superuser. Tenants have numbers, because tokens and invoices carry them.

\set QUIET on
\set chief :tenant _chief
\set app :tenant -app

-- CREATE DATABASE runs in no transaction; nobody but the owner is let into the new database.
CREATE DATABASE :"tenant";
REVOKE CONNECT, TEMPORARY ON DATABASE :"tenant" FROM PUBLIC;

BEGIN;
CREATE TENANT :"tenant" ID :number;
ALTER TENANT :"tenant" SET QUOTA max_connections = 20;
-- The customer's own administrator, who makes all further users.
CREATE USER :"chief" PASSWORD :'chief_password' ROLE tenant_admin TENANT :number;
GRANT CONNECT ON DATABASE :"tenant" TO :"chief";
ALTER USER :"chief" SET DEFAULT DATABASE :"tenant";
CREATE SERVICE ACCOUNT :'app' FOR DATABASE :"tenant" ROLE readwrite TENANT :number;
COMMIT;

-- The customer's tables, owned by its own administrator.
\connect :"tenant"
CREATE SCHEMA shop AUTHORIZATION :"chief";

SHOW TENANTS;
