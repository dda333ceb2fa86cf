#!/usr/bin/env escript
main([Port]) ->
    {ok, _} = application:ensure_all_started(stun),
    ok = stun_listener:add_listener({127,0,0,1}, list_to_integer(Port), udp,
        [use_turn, {auth_type, user}, {auth_realm, <<"realm">>},
         {auth_fun, fun(<<"u">>, _) -> <<"p">>; (_, _) -> <<>> end},
         {turn_ipv4_address, {127,0,0,1}}]),
    receive stop -> ok end.
