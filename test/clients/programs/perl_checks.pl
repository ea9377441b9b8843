# What Perl's DBD::Pg does with a server; connection parameters come from libpq's environment variables.

use strict;
use warnings;
use utf8;
use DBI;
use DBD::Pg qw(:pg_types :async);
use IO::Select;
use JSON::PP;
use Time::HiRes qw(sleep);

$| = 1;
my $user = $ENV{PGUSER};
my $horse = "Příliš žluťoučký kůň \x{1F40E} ' \" \\ \$1";
my $bytes = join '', map { chr } 0 .. 255;
my $json = JSON::PP->new->ascii->canonical;

sub check {
    my ($name, $action) = @_;
    my $ok = eval { $action->(); 1 };
    my $line = { check => $name, ok => $ok ? JSON::PP::true : JSON::PP::false };
    $line->{message} = "$@" unless $ok;
    print $json->encode($line), "\n";
}

sub same {
    my ($actual, $expected, $what) = @_;
    my ($got, $wanted) = map { $json->allow_nonref->encode($_) } $actual, $expected;
    return if $got eq $wanted;
    die sprintf "%s: got %.300s, expected %.300s\n", $what // 'value', $got, $wanted;
}

sub refused {
    my ($state, $dbh, $action) = @_;
    die "was not refused\n" if eval { $action->(); 1 };
    same($dbh->state, $state, 'SQLSTATE');
    return $dbh;
}

sub connection {
    my (%attributes) = @_;
    my $password = delete $attributes{password} // $ENV{PGPASSWORD};
    my $name = delete $attributes{user} // $user;
    my $more = delete $attributes{more} // '';
    return DBI->connect("dbi:Pg:$more", $name, $password,
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, %attributes });
}

sub one {
    my ($dbh, $sql, @parameters) = @_;
    return ($dbh->selectrow_array($sql, undef, @parameters))[0];
}

check 'logs in with a password and acts as its own role', sub {
    same(one(connection(), "SELECT current_user || ' ' || session_user"), "$user $user");
};

check "sees the server's parameters and its own application_name", sub {
    my $dbh = connection(more => q{application_name='perl checks';options='-c statement_timeout=12345'});
    same(one($dbh, 'SHOW application_name'), 'perl checks');
    same(one($dbh, 'SHOW statement_timeout'), '12345ms', 'statement_timeout from options');
    same($dbh->{pg_server_version} >= 150000 ? 1 : 0, 1, 'server version');
    same($dbh->{pg_pid}, one($dbh, 'SELECT pg_backend_pid()') + 0, 'process id');
};

check 'is refused with 28P01 for a wrong password', sub {
    die "was not refused\n" if eval { connection(password => 'not the password') };
    same($DBI::errstr =~ /password authentication failed for user "\Q$user\E"/ ? 1 : $DBI::errstr, 1);
};

check 'is refused with the same words for an unknown user', sub {
    die "was not refused\n" if eval { connection(user => 'nobody_of_this_name') };
    same($DBI::errstr =~ /password authentication failed for user "nobody_of_this_name"/ ? 1 : $DBI::errstr, 1);
};

check 'round-trips parameters of many types', sub {
    my $dbh = connection();
    $dbh->do("SET TimeZone = 'UTC'");
    my @values = (
        [ int8 => '-9223372036854775807' ], [ numeric => '12345678901234567890.012345678900' ],
        [ text => $horse ], [ text => '' ], [ text => undef ], [ bool => '1' ],
        [ timestamptz => '2024-02-29 18:29:59.123456+00' ], [ uuid => '6b1f4f9e-2f5a-4c1e-9d43-0b8f5b1d7a10' ],
    );
    for my $case (@values) {
        my ($type, $value) = @$case;
        my $got = one($dbh, "SELECT ?::$type", $value);
        same(defined $got ? "$got" : undef, $value, $type);
    }
    my $array = one($dbh, 'SELECT ?::text[]', [ 'a', 'b,"c"', undef, '', $horse ]);
    same($array, [ 'a', 'b,"c"', undef, '', $horse ], 'text[]');
    my $statement = $dbh->prepare('SELECT ?::bytea');
    $statement->bind_param(1, $bytes, { pg_type => PG_BYTEA });
    $statement->execute;
    same($statement->fetchrow_arrayref->[0] eq $bytes ? 1 : 0, 1, 'bytea');
};

for my $mode (0, 1, 2) {
    check "repeats a prepared statement with pg_server_prepare=$mode", sub {
        my $dbh = connection(pg_server_prepare => $mode > 0, pg_switch_prepared => $mode);
        my $statement = $dbh->prepare('SELECT ?::int + 1, ?::text');
        for my $number (0 .. 19) {
            $statement->execute($number, $horse);
            same([ map { "$_" } @{ $statement->fetchrow_arrayref } ], [ $number + 1 . '', $horse ]);
            $statement->finish;
        }
    };
}

check 'keeps what it commits and loses what it rolls back', sub {
    my ($dbh, $other) = (connection(AutoCommit => 0), connection());
    $dbh->do('INSERT INTO account VALUES (?, ?, ?)', undef, 100, 'kept', 1);
    same(one($other, 'SELECT count(*) FROM account WHERE id = 100') + 0, 0, 'before the commit');
    $dbh->commit;
    $dbh->do('DELETE FROM account WHERE id = 100');
    $dbh->rollback;
    same(one($other, 'SELECT owner FROM account WHERE id = 100'), 'kept');
    $dbh->disconnect;
};

check 'returns to a savepoint', sub {
    my $dbh = connection(AutoCommit => 0);
    $dbh->do("INSERT INTO account VALUES (110, 'outer', 1)");
    $dbh->pg_savepoint('before_duplicate');
    refused('23505', $dbh, sub { $dbh->do("INSERT INTO account VALUES (110, 'inner', 1)") });
    $dbh->pg_rollback_to('before_duplicate');
    $dbh->do('UPDATE account SET balance = 2 WHERE id = 110');
    $dbh->commit;
    same(one($dbh, 'SELECT balance::text FROM account WHERE id = 110'), '2.00');
    $dbh->disconnect;
};

check 'is refused with 25P02 after an error until it rolls back', sub {
    my $dbh = connection(AutoCommit => 0);
    refused('22012', $dbh, sub { one($dbh, 'SELECT 1/0') });
    same($dbh->ping, 4, 'ping in a failed transaction');
    refused('25P02', $dbh, sub { one($dbh, 'SELECT 1') });
    $dbh->rollback;
    same(one($dbh, 'SELECT 1') + 0, 1);
    $dbh->disconnect;
};

check 'gets every field of a constraint violation', sub {
    my $dbh = connection();
    my $fields = refused('23505', $dbh, sub { $dbh->do("INSERT INTO account VALUES (1, 'x', 1)") })->pg_error_field('pg_diag_severity');
    same($fields, 'ERROR');
    my %expected = (
        schema_name => 'public', table_name => 'account', constraint_name => 'account_pkey',
        message_detail => 'Key (id)=(1) already exists.',
    );
    same($dbh->pg_error_field($_), $expected{$_}, $_) for sort keys %expected;
    same(refused('23502', $dbh, sub { $dbh->do('INSERT INTO account VALUES (2)') })->pg_error_field('column_name'), 'owner');
};

check 'gets the position of a syntax error', sub {
    my $dbh = connection();
    same(refused('42601', $dbh, sub { $dbh->do('SELECT 1,, 2') })->pg_error_field('statement_position'), '10');
};

check 'gets detail and hint of a raised error', sub {
    my $dbh = connection();
    my $raise = q{DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE='22023', DETAIL='Why.', HINT='Do.'; END$$};
    refused('22023', $dbh, sub { $dbh->do($raise) });
    same([ map { $dbh->pg_error_field($_) } qw(message_primary message_detail message_hint) ], [ 'no', 'Why.', 'Do.' ]);
};

check 'copies rows in and out', sub {
    my $dbh = connection();
    $dbh->do('CREATE TEMP TABLE copied (id int, name text)');
    my @rows = map { "$_\trow $_\n" } 1 .. 5000;
    $dbh->do('COPY copied FROM STDIN');
    $dbh->pg_putcopydata($_) for @rows;
    $dbh->pg_putcopyend;
    $dbh->do('COPY copied TO STDOUT');
    my @read;
    while ($dbh->pg_getcopydata(my $row) >= 0) {
        push @read, $row;
    }
    same(join('', @read) eq join('', @rows) ? 1 : 0, 1, 'the rows came back');
};

check 'goes on after a failed copy', sub {
    my $dbh = connection();
    $dbh->do('CREATE TEMP TABLE copied (id int)');
    $dbh->do('COPY copied FROM STDIN');
    $dbh->pg_putcopydata("1\nnot a number\n");
    refused('22P02', $dbh, sub { $dbh->pg_putcopyend });
    same(one($dbh, 'SELECT count(*) FROM copied') + 0, 0);
};

check 'reads 100,000 rows through a cursor', sub {
    my $dbh = connection(AutoCommit => 0);
    $dbh->do("DECLARE many CURSOR FOR SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n");
    my $total = 0;
    while (my @page = @{ $dbh->selectall_arrayref('FETCH 5000 FROM many') }) {
        $total += $_->[0] for @page;
    }
    same("$total", '5000050000');
    $dbh->disconnect;
};

check 'sends and receives a value of 20 MB', sub {
    my $dbh = connection();
    my $content = $bytes x (20 * 4096);
    my $statement = $dbh->prepare('SELECT ?::bytea');
    $statement->bind_param(1, $content, { pg_type => PG_BYTEA });
    $statement->execute;
    same($statement->fetchrow_arrayref->[0] eq $content ? 1 : 0, 1, 'content came back');
};

check 'cancels a running statement and goes on', sub {
    my ($dbh, $other) = (connection(), connection());
    my $statement = $dbh->prepare('SELECT pg_sleep(60)', { pg_async => PG_ASYNC });
    $statement->execute;
    my $active = q{SELECT count(*) FROM pg_stat_activity WHERE pid = ? AND state = 'active' AND query LIKE '%pg_sleep(60)%'};
    sleep 0.02 until one($other, $active, $dbh->{pg_pid}) > 0;
    same($dbh->pg_cancel ? 1 : 0, 1, 'cancel');
    same(one($dbh, 'SELECT 1') + 0, 1, 'after the cancel');
};

check 'receives notices', sub {
    my $dbh = connection();
    my @notices;
    local $SIG{__WARN__} = sub { push @notices, shift };
    $dbh->{PrintWarn} = 1;
    $dbh->do(q{DO $$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END$$});
    same([ map { /(NOTICE|WARNING):  (\w+)/ ? "$1 $2" : () } map { split /\n/ } @notices ], [ 'NOTICE first', 'WARNING second' ]);
};

check 'receives notifications from another session', sub {
    my ($dbh, $other) = (connection(), connection());
    $dbh->do('LISTEN perl_channel');
    $other->do(q{SELECT pg_notify('perl_channel', ?)}, undef, $horse);
    my ($socket, $notification) = ($dbh->{pg_socket});
    open my $handle, '<&=', $socket or die $!;
    IO::Select->new($handle)->can_read(20) until $notification = $dbh->pg_notifies;
    same($notification, [ 'perl_channel', $other->{pg_pid}, $horse ]);
};

check 'reads the catalogs', sub {
    my $dbh = connection();
    same([ $dbh->primary_key(undef, 'public', 'account') ], ['id'], 'primary key');
    same($dbh->column_info(undef, 'public', 'account', 'balance')->fetchrow_hashref->{TYPE_NAME}, 'numeric', 'type');
};
