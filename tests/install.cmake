# SPDX-License-Identifier: GPL-2.0-or-later
#
# Installs a build below two prefixes and checks that what names places names those.
#   cmake -D BUILD=<build folder> -D WORK=<folder for the trial> -P install.cmake
cmake_minimum_required(VERSION 3.25)

function(check_text file wanted)
  file(READ ${file} text)
  string(FIND "${text}" "${wanted}" place)
  if(place EQUAL -1)
    message(SEND_ERROR "${file} does not say \"${wanted}\":\n${text}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
foreach(prefix /usr /opt/moat)
  set(ENV{DESTDIR} ${WORK}/${prefix}/dest)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix}
                  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
  set(root ${WORK}/${prefix}/dest${prefix})
  file(GLOB_RECURSE pc ${root}/*/moat.pc)
  check_text(${pc} "prefix=${prefix}\n")
  check_text(${pc} "includedir=${prefix}/include\n")
  file(GLOB_RECURSE service ${root}/*/moatd.service)
  if(service)
    check_text(${service} "ExecStart=${prefix}/sbin/moatd\n")
  endif()
  if(NOT EXISTS ${root}/sbin/moatd)
    message(SEND_ERROR "${root}/sbin/moatd is not there")
  endif()
endforeach()
file(REMOVE_RECURSE ${WORK})
