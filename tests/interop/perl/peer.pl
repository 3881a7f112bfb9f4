#!/usr/bin/perl
# Mojolicious as a peer, with compression: see tests/interop/scenarios.py.
#
#     peer.pl server
#     peer.pl client URL SCENARIO

use Mojo::Base -strict;
use Digest::SHA qw(sha256_hex);
use Encode qw(decode encode);
use Mojo::IOLoop;
use Mojo::JSON qw(encode_json);
use Mojo::Server::Daemon;
use Mojo::UserAgent;
use Mojolicious;

my @SIZES = (0, 1, 125, 126, 65535, 65536, 1_000_000);
my $LIMIT = 2_000_000;    # its own default is 256 KiB

STDOUT->autoflush(1);

sub message_of {
    my ($kind, $size) = @_;
    if ($kind eq 'text') {
        return decode('UTF-8', "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80a" x int($size / 10)
              . 'x' x ($size % 10));
    }
    return pack 'C*', map { $_ % 251 } 0 .. $size - 1;
}

sub report {
    say encode_json({@_});
}

sub report_message {
    my ($kind, $data) = @_;
    report(event => 'message', kind => $kind, size => length $data, sha256 => sha256_hex($data));
}

sub report_closed {
    my ($tx, $code, $reason) = @_;
    report(event => 'closed', code => $code, reason => $reason // '');
}

sub serve {
    my $app = Mojolicious->new(secrets => ['none']);
    $app->log->level('fatal');
    my $handle = sub {
        my $c  = shift;
        my $tx = $c->tx;
        $tx->with_compression;
        $tx->max_websocket_size($LIMIT);
        $tx->on(finish => \&report_closed);
        $c->rendered(101);
        return $tx->finish(4000, 'bye') if $c->req->url->path eq '/close';
        $tx->on(text => sub {
            my ($tx, $bytes) = @_;
            report_message('text', $bytes);
            $tx->send({text => $bytes});
        });
        $tx->on(binary => sub {
            my ($tx, $bytes) = @_;
            report_message('binary', $bytes);
            $tx->send({binary => $bytes});
        });
    };
    $app->routes->websocket('/')->to(cb => $handle);
    $app->routes->websocket('/close')->to(cb => $handle);
    my $daemon = Mojo::Server::Daemon->new(
        app => $app, listen => ['http://127.0.0.1:0'], silent => 1, inactivity_timeout => 0);
    $daemon->start;
    report(event => 'listening', port => 0 + $daemon->ports->[0]);

    # The end of stdin is the request to end.
    Mojo::IOLoop->singleton->reactor->io(\*STDIN => sub { Mojo::IOLoop->stop })
        ->watch(\*STDIN, 1, 0);
    Mojo::IOLoop->start;
}

sub connect_to {
    my ($url, $scenario) = @_;
    my $ua = Mojo::UserAgent->new(inactivity_timeout => 0);
    $ua->websocket($url => {'Sec-WebSocket-Extensions' => 'permessage-deflate'} => sub {
        my ($ua, $tx) = @_;
        die 'no WebSocket' unless $tx->is_websocket;
        $tx->max_websocket_size($LIMIT);
        $tx->on(finish => sub { report_closed(@_); Mojo::IOLoop->stop });
        return if $scenario eq 'wait';
        return $tx->finish(4000, 'bye') if $scenario eq 'close';
        my @left = @SIZES;
        my $next = sub {

            # Not from within an event: the Close frame would never be written.
            return Mojo::IOLoop->next_tick(sub { $tx->finish(1000) }) unless @left;
            my $message = message_of($scenario, shift @left);
            $tx->send($scenario eq 'text' ? $message : {binary => $message});
        };
        $tx->on(text   => sub { report_message('text',   $_[1]); $next->() });
        $tx->on(binary => sub { report_message('binary', $_[1]); $next->() });
        $next->();
    });
    Mojo::IOLoop->start;
}

my ($role, @arguments) = @ARGV;
$role eq 'server' ? serve() : connect_to(@arguments);
